"""Who is told that an answer has ended: the log, the observers, and the application."""

import asyncio
import logging
import time
from collections.abc import Sequence

import msgspec

from chat_sse.events import Delta, Done, Failure, Reasoning, decode_event
from chat_sse.records import AfterAnswer, AnsweredQuestion, AnswerRecord, Observer
from chat_sse.relay.answer import RunningAnswer

log = logging.getLogger(__name__)

# The hook of an application may write to a database of its own.
HOOK_SECONDS = 10.0


class Reports:
    """Tells of each answer once, when its pump has ended, however it did."""

    def __init__(self, observers: Sequence[Observer] = (), after_answer: AfterAnswer | None = None) -> None:
        self._observers = observers
        self._after_answer = after_answer
        self._running: set[asyncio.Task[None]] = set()

    def ended(self, answer: RunningAnswer, charged_tokens: int) -> None:
        """Tell of an answer. Does not wait."""
        record = _record(answer, charged_tokens)
        _write_line(record)
        for observe in self._observers:
            observe(record)
        if self._after_answer is not None and record.may_cost:
            task = asyncio.create_task(
                self._hand_over(self._after_answer, record, answer), name=f"after {record.stream_id}"
            )
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def aclose(self) -> None:
        """Wait until the application has been told of every answer."""
        if self._running:
            await asyncio.wait(self._running, timeout=HOOK_SECONDS)

    async def _hand_over(self, hook: AfterAnswer, record: AnswerRecord, answer: RunningAnswer) -> None:
        try:
            async with asyncio.timeout(HOOK_SECONDS):
                await hook(await _with_content(record, answer))
        except Exception:  # an application's own
            log.exception("after_answer.failed", extra={"fields": {"id": record.stream_id}})


def _record(answer: RunningAnswer, charged_tokens: int) -> AnswerRecord:
    end, first = answer.log.terminal, answer.first_event_at
    failure = end if isinstance(end, Failure) else None
    return AnswerRecord(
        stream_id=answer.log.id,
        request_id=answer.request_id,
        owner=answer.log.owner,
        model=answer.question.model,
        answered_by=answer.model or answer.question.model,
        outcome="error" if failure else "done" if answer.done == end else "cancelled",
        abandoned=answer.is_abandoned,
        finish_reason=end.finish_reason if isinstance(end, Done) else None,
        error=failure.error if failure else None,
        details=failure.details if failure else None,
        may_cost=not answer.unpaid,
        usage=answer.done.usage if answer.done else None,
        charged_tokens=charged_tokens,
        started_at=time.time() - answer.seconds,
        first_event_seconds=None if first is None else first - answer.started_at,
        seconds=answer.seconds,
        events=answer.log.length,
        size=answer.log.size,
        readers=answer.readers.total,
        resumes=answer.readers.resumes,
    )


def _write_line(record: AnswerRecord) -> None:
    usage, first = record.usage, record.first_event_seconds
    fields: dict[str, object] = {
        "id": record.stream_id,
        "request_id": record.request_id,
        "principal": record.owner,
        "model": record.model,
        "answered_by": record.answered_by,
        "outcome": "abandoned" if record.abandoned else record.outcome,
    }
    if record.outcome == "error":
        fields |= {"error": record.error, "details": record.details}
    else:
        fields["finish_reason"] = record.finish_reason
    fields |= {"first_event_seconds": None if first is None else round(first, 3)}
    fields |= {"seconds": round(record.seconds, 3), "events": record.events, "bytes": record.size}
    if usage is None:
        told = "estimated" if record.may_cost else "none"
        fields |= {"usage": told, "tokens": record.charged_tokens}
    else:
        fields |= {"usage": "told", "tokens": usage.total_tokens}
        fields |= {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    fields |= {"readers": record.readers, "resumes": record.resumes}
    log.info("answer.ended", extra={"fields": fields})


async def _with_content(record: AnswerRecord, answer: RunningAnswer) -> AnsweredQuestion:
    """Read an ended answer's log. Raises ChatError where it can no longer be read to its end."""
    text: list[str] = []
    reasoning: list[str] = []
    after = -1
    while entries := await answer.log.read(after):
        after += len(entries)
        for event in map(decode_event, entries):
            if isinstance(event, Delta):
                text.append(event.content)
            elif isinstance(event, Reasoning):
                reasoning.append(event.content)
    return AnsweredQuestion(
        **msgspec.structs.asdict(record),
        question=answer.question,
        text="".join(text),
        reasoning="".join(reasoning),
    )
