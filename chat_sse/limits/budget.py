"""How many tokens may be spent in a day or a month: by one client, and by everybody together.

The budget is hard. Before upstream is asked, the most that the question can cost is taken out of it: an upper
bound of the prompt and the whole output cap. When the answer has ended, what it did not cost is put back. So
no number of questions at the same time can spend more than there is.

Windows are days and months of UTC. An answer belongs to the window in which it was asked.
"""

import time
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, Self

import msgspec

from chat_sse.errors import BudgetSpent, PayloadTooLarge
from chat_sse.events import Usage
from chat_sse.limits.headers import LimitStatus, limit_headers, tighter
from chat_sse.limits.scopes import Scope, amounts, scopes_of
from chat_sse.messages import Question, TextPart

EVERYBODY = "for everybody together"

# Byte-level BPE (OpenAI, Llama 3, Qwen, Mistral and others) makes at most one token of a byte. Around a
# message stand some tokens of the chat template (OpenAI's cookbook: 3 or 4; Llama 3: 5), and before the
# conversation some servers put a system prompt of their own (gpt-oss: some 70 tokens).
TOKENS_PER_MESSAGE = 16
TOKENS_PER_CONVERSATION = 256
# Tokenizers use NFC (Qwen), NFKC (SentencePiece's default), NFD (BERT and its kin). A composed character has
# no more bytes than its decomposition, so the decomposed forms bound the composed ones.
DECOMPOSED_FORMS: Final = ("NFD", "NFKD")
# Sorting combining characters takes quadratic time: 100,000 of them in one piece took 8 s, in these 20 ms.
# Each character is decomposed by itself, so the pieces have as many bytes as the whole.
PIECE_CHARS = 256
# Some templates mark or separate each content part.
TOKENS_PER_PART = 8
# The dearest image of the OpenAI API: gpt-4o-mini, 2,833 tokens and 5,667 for each of at most 8 tiles of 512
# pixels (within 2,048 by 768). Models that count patches stay below it. (OpenAI's guide "Images and vision".)
TOKENS_PER_IMAGE = 2_833 + 8 * 5_667


class Window(msgspec.Struct, frozen=True):
    """One day or month; times are in seconds since 1970."""

    name: str
    start: float
    end: float


class Budget(msgspec.Struct, frozen=True):
    """So many tokens in a day or a month."""

    tokens: int
    period: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read `1000000/day` or `/month`; None for `off`."""
        if text == "off":
            return None
        tokens, _, period = text.partition("/")
        return cls(int(tokens), period)

    def window(self, now: float) -> Window:
        """Return the window that a time lies in."""
        moment = datetime.fromtimestamp(now, UTC)
        start = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.period == "day":
            return Window(f"{start:%Y-%m-%d}", start.timestamp(), (start + timedelta(days=1)).timestamp())
        start = start.replace(day=1)
        following = (start + timedelta(days=31)).replace(day=1)
        return Window(f"{start:%Y-%m}", start.timestamp(), following.timestamp())

    def status(self, spent: int, window: Window, now: float) -> LimitStatus:
        """Return how much is left."""
        seconds = round(window.end - window.start)
        return LimitStatus(self.tokens, seconds, max(0, self.tokens - spent), window.end - now)


class Reservation(msgspec.Struct, frozen=True):
    """What was taken out of the budgets for one question."""

    client: str
    tokens: int
    windows: tuple[str, ...]
    """Names of the windows that it was taken from, the client's first."""
    status: LimitStatus | None


class Budgets(Protocol):
    """Keeps what has been spent."""

    async def reserve(self, client: str, tokens: int) -> Reservation:
        """Reserve the most that a question can cost.

        Raises BudgetSpent when there is not so much left, PayloadTooLarge when there never will be, and
        StoreUnavailable when the counts are out of reach.
        """
        ...

    def settle(self, reservation: Reservation, tokens: int) -> None:
        """Replace a reservation by what was spent, once. Never waits and never raises."""
        ...


def prompt_bound(question: Question, system_prompt: str | None = None) -> int:
    """Return a number of tokens that the prompt cannot exceed."""
    tokens = TOKENS_PER_CONVERSATION + (_bytes_of(system_prompt) if system_prompt else 0)
    for message in question.messages:
        tokens += TOKENS_PER_MESSAGE
        if isinstance(message.content, str):
            tokens += _bytes_of(message.content)
            continue
        for part in message.content:
            tokens += TOKENS_PER_PART
            tokens += _bytes_of(part.text) if isinstance(part, TextPart) else TOKENS_PER_IMAGE
    return tokens


def _bytes_of(text: str) -> int:
    """Return the bytes of a text's largest form. Tokenizers may normalise first, which can grow a text."""
    if text.isascii():
        return len(text)
    pieces = [text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS)]
    decomposed = (
        sum(_utf8(unicodedata.normalize(form, piece)) for piece in pieces) for form in DECOMPOSED_FORMS
    )
    return max(_utf8(text), *decomposed)


def _utf8(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def tokens_told(usage: Usage) -> int:
    """Read upstream's own count; of two that disagree the larger one."""
    return max(0, usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)


def budget_spent(budget: Budget, window: Window, now: float, spent: int, whose: str) -> BudgetSpent:
    """Return the refusal of a question that could cost more than is left."""
    return BudgetSpent(
        f"limit: {budget.tokens} tokens per {budget.period} {whose}; "
        "this question may cost more than is left",
        retry_after=window.end - now,
        headers=limit_headers(None, budget.status(spent, window, now)),
    )


def check_fits(budget: Budget, tokens: int) -> None:
    """Refuse a question that the whole budget would not be enough for."""
    if tokens > budget.tokens:
        raise PayloadTooLarge(
            f"this question may cost {tokens} tokens, prompt and longest answer; "
            f"the whole budget is {budget.tokens} a {budget.period}"
        )


def share_of_budget(total: Budget | None, percent: int, at_least: int) -> Budget | None:
    """Return a part of everybody's budget, of `at_least` so many tokens. None where that is no part."""
    part = 0 if total is None else max(total.tokens * percent // 100, at_least)
    return Budget(part, total.period) if total is not None and part < total.tokens else None


def budgets_by_scope(per_client: Budget | None, most: Budget | None) -> dict[Scope, list[Budget]]:
    """Return the budgets of each scope. `most`: what an address or a site may have of the total."""
    own, cap = ((budget.tokens, budget.period) if budget else None for budget in (per_client, most))
    return {scope: [Budget(*limit) for limit in limits] for scope, limits in amounts(own, cap).items()}


class _Account:
    """What one budget's current window has seen, by client."""

    def __init__(self, budget: Budget, whose: str) -> None:
        self.budget = budget
        self.whose = whose
        self.window = Window("", 0, 0)
        self._spent: dict[str, int] = {}

    def turn(self, now: float) -> None:
        """Begin a new window when the old one is over."""
        if now >= self.window.end:
            self.window = self.budget.window(now)
            self._spent = {}

    def spent(self, client: str) -> int:
        return self._spent.get(client, 0)

    def add(self, client: str, tokens: int) -> None:
        """Change a client's sum. Only clients that spent something are kept, so each entry was paid for."""
        if total := self._spent.get(client, 0) + tokens:
            self._spent[client] = total
        else:
            self._spent.pop(client, None)


class MemoryBudgets:
    """Budgets of one process; they begin anew with it."""

    def __init__(
        self,
        per_client: Budget | None,
        total: Budget | None,
        clock: Callable[[], float] = time.time,
        *,
        most: Budget | None = None,
    ) -> None:
        """`most`: what an address or a site may have of the total."""
        self._clock = clock
        self._accounts = {
            scope: [_Account(budget, scope.whose) for budget in budgets]
            for scope, budgets in budgets_by_scope(per_client, most).items()
        }
        self._total = [_Account(total, EVERYBODY)] if total else []

    async def reserve(self, client: str, tokens: int) -> Reservation:
        """Reserve, as `Budgets.reserve` promises."""
        now, status = self._clock(), None
        accounts = self._of(client)
        for account, name in accounts:
            account.turn(now)
            check_fits(account.budget, tokens)
            before = account.spent(name)
            if before + tokens > account.budget.tokens:
                raise budget_spent(account.budget, account.window, now, before, account.whose)
            here = account.budget.status(before + tokens, account.window, now)
            status = here if status is None else tighter(status, here)
        for account, name in accounts:
            account.add(name, tokens)
        return Reservation(client, tokens, tuple(account.window.name for account, _ in accounts), status)

    def settle(self, reservation: Reservation, tokens: int) -> None:
        """Settle, as `Budgets.settle` promises."""
        accounts = self._of(reservation.client)
        for (account, name), window in zip(accounts, reservation.windows, strict=True):
            if account.window.name == window:
                account.add(name, tokens - reservation.tokens)

    def _of(self, client: str) -> list[tuple[_Account, str]]:
        """Return the accounts that a client's questions are taken from, with its names in them."""
        own = [(account, name) for scope, name in scopes_of(client) for account in self._accounts[scope]]
        return [*own, *((account, "") for account in self._total)]
