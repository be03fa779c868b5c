"""What an upstream can do to an answer: the fault matrix's rows, which the soak draws from as well."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tests.support.names import can_resolve
from tests.support.upstream import Accept, Cut, Eof, Finish, Pause, Raw, Refuse, Reset, Say, Silence, Step

WORDS = tuple(f"w{number} " for number in range(12))
BIG_BYTES = 10 * 1_048_576
TINY_DELTAS = 100_000
# Models of the site that are no scripted upstream: see `tests.support.harness`.
CLOSED, UNTRUSTED, UNKNOWN, UNRESOLVED = "closed", "untrusted", "unknown", "unresolved"
# The scripted upstream, by a name that takes its time.
SLOW_NAME = "slow-name"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """How one answer goes."""

    name: str
    steps: tuple[Step, ...] = (Refuse(400),)
    text: str = ""
    """All the text that upstream sends."""
    is_whole: bool = False
    """Whether upstream ends it well: the answer then is `done`, with all of the text."""
    is_paid: bool = True
    model: str | None = None
    is_heavy: bool = False
    """Megabytes or many events: only for a client that reads all of it."""


def _after(count: int, *ending: Step) -> tuple[Step, ...]:
    return (*(Say(word) for word in WORDS[:count]), *ending)


def _half(name: str, *ending: Step) -> Fault:
    return Fault(name=name, steps=_after(5, *ending), text="".join(WORDS[:5]))


def _chunks(text: str, times: int) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return (b"data: " + msgspec.json.encode(chunk) + b"\n\n") * times


def _tiny() -> Iterator[Step]:
    for _ in range(100):
        yield Raw(_chunks("x", TINY_DELTAS // 100))
    yield Finish()


def slowly(*words: str, seconds: float = 0.02) -> tuple[Step, ...]:
    """Say words with a pause after each, and finish."""
    return (*(step for word in words for step in (Say(word), Pause(seconds))), Finish())


WHOLE = Fault(name="whole", steps=_after(12, Finish()), text="".join(WORDS), is_whole=True)
SLOW = Fault(name="slow", steps=slowly(*WORDS), text="".join(WORDS), is_whole=True)

NAME_SERVERS = (
    Fault(name="name server hangs", is_paid=False, model=UNRESOLVED),
    Fault(
        name="name server slow",
        steps=WHOLE.steps,
        text=WHOLE.text,
        is_whole=True,
        model=SLOW_NAME,
    ),
)
FAULTS = (
    WHOLE,
    SLOW,
    Fault(name="refuses", is_paid=False),
    Fault(name="closed port", is_paid=False, model=CLOSED),
    Fault(name="bad TLS", is_paid=False, model=UNTRUSTED),
    Fault(name="unknown name", is_paid=False, model=UNKNOWN),
    *(NAME_SERVERS if can_resolve() else ()),
    Fault(name="hangs before the head", steps=(Silence(),)),
    Fault(name="hangs before the first token", steps=(Accept(), Silence())),
    Fault(name="resets before the head", steps=(Reset(),)),
    _half("stalls", Silence()),
    _half("resets", Reset()),
    _half("ends early", Eof()),
    _half("garbage", Raw(b"data: {nonsense\n\n"), Eof()),
    _half("no UTF-8", Raw(b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n'), Eof()),
    _half("error event", Raw(b'data: {"error": {"message": "no", "type": "server_error"}}\n\n'), Eof()),
)
TRUNCATED = tuple(
    Fault(name=f"cut after frame {count}", steps=_after(count, Cut()), text="".join(WORDS[:count]))
    for count in range(13)
)
HEAVY = (
    Fault(
        name="10 MB in one delta",
        steps=(Say("x" * BIG_BYTES), Finish()),
        text="x" * BIG_BYTES,
        is_whole=True,
        is_heavy=True,
    ),
    Fault(
        name="100,000 tiny deltas",
        steps=tuple(_tiny()),
        text="x" * TINY_DELTAS,
        is_whole=True,
        is_heavy=True,
    ),
)
