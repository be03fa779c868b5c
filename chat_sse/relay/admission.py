"""How a new question comes in: its log is created and its limits are checked, or neither stands."""

from chat_sse.errors import ChatError, InternalError
from chat_sse.events import failure
from chat_sse.limits.admission import Outcome, Permit
from chat_sse.messages import Question
from chat_sse.stores.base import Log, LogSpec, Store

UNASKED = Outcome(refused=True, done=None, seconds=0, size=0)


async def create_admitted(
    store: Store, spec: LogSpec, question: Question, permit: Permit, request_id: str
) -> Log | None:
    """Create a log whose question the limits admit. None where its key is another log's, which costs nothing.

    Raises what `Store.create` and `Permit.admit` raise; then nothing is held, and the key is free.
    """
    creating, stream = store.create(spec), None
    if spec.idempotency_key is not None:
        stream = await creating
        if stream is None:
            return None
    try:
        await permit.admit(spec.stream_id, question)
    except BaseException as exc:
        await withdraw(store, stream or await creating, exc, request_id)
        raise
    if stream is None:
        try:
            stream = await creating
        except BaseException:
            permit.settle(UNASKED)
            raise
    return stream


async def withdraw(store: Store, stream: Log | None, why: BaseException, request_id: str) -> None:
    """End a log whose question is not asked, which others may read by now, and free its key."""
    if stream is not None:
        error = why if isinstance(why, ChatError) else InternalError("the question was interrupted")
        stream.append([failure(error, request_id)])
        await store.discard(stream)
