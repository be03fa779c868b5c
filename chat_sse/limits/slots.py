"""How many answers may run at once: of one client, and in all.

A slot is held from before upstream is asked until its call has ended, however it ended.
"""

from chat_sse.errors import LimitReached, Overloaded, TooManyStreams
from chat_sse.limits.plan import EVERYBODY, Count

# Nobody knows when an answer ends; this is what one of a few sentences takes.
RETRY_SECONDS = 5.0


def no_slot(count: Count[int]) -> LimitReached | Overloaded:
    """Return the refusal where all slots are taken."""
    if count.name == EVERYBODY:
        return Overloaded(f"all {count.limit} answers at once are running", retry_after=RETRY_SECONDS)
    return TooManyStreams(f"limit: {count.limit} answers at once {count.whose}", retry_after=RETRY_SECONDS)
