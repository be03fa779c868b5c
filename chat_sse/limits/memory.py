"""The counts of one process; they begin anew with it."""

import time
from collections.abc import Callable, Sequence

from chat_sse.limits.budget import Budget, budget_spent, check_fits
from chat_sse.limits.counts import Reservation, Standing, standing_of, status_of
from chat_sse.limits.headers import LimitStatus, tightest
from chat_sse.limits.plan import NO_LIMITS_OF_ITS_OWN, Count, OwnLimits, Plan
from chat_sse.limits.rates import SECONDS, Rate, Seen
from chat_sse.limits.slots import no_slot

# Of clients in one window. All windows take some 20 MB. More clients come about only from as many addresses:
# who has those has their rates too, and is held by the rate for everybody.
MAX_CLIENTS = 50_000


class Windows:
    """The requests of each client in this window and in the one before; all windows begin with the clock's.

    The older window is dropped as a whole, so nothing is ever swept.
    """

    def __init__(self, seconds: int) -> None:
        """`seconds`: the length of a window."""
        self._seconds = seconds
        self._number = 0
        self._here: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def __len__(self) -> int:
        """How many counts there are."""
        return len(self._here) + len(self._before)

    def seen(self, name: str, now: float) -> Seen:
        """Return what a name has asked."""
        number, into = divmod(now, self._seconds)
        if number > self._number:  # a clock that was set back goes on in this window
            self._before = self._here if number == self._number + 1 else {}
            self._here, self._number = {}, int(number)
        return Seen(self._before.get(name, 0), self._here.get(name, 0), into)

    def add(self, name: str) -> None:
        """Count a request; `seen` was called just before."""
        count = self._here.get(name, 0)
        if not count and len(self._here) >= MAX_CLIENTS:
            del self._here[next(iter(self._here))]
        self._here[name] = count + 1

    def take_back(self, name: str) -> None:
        """Count one request less, if any is counted in this window."""
        if count := self._here.get(name):
            self._here[name] = count - 1


class Spending:
    """The tokens that each client has reserved or spent in this day or month."""

    def __init__(self) -> None:
        self.window = ""
        self._spent: dict[str, int] = {}

    def turn(self, window: str) -> None:
        """Begin a new window when the old one is over."""
        if window != self.window:
            self.window = window
            self._spent.clear()

    def spent(self, name: str) -> int:
        """Return a name's sum."""
        return self._spent.get(name, 0)

    def add(self, name: str, tokens: int) -> None:
        """Change a name's sum. Only those that spent something are kept, so each entry was paid for."""
        if spent := self._spent.get(name, 0) + tokens:
            self._spent[name] = spent
        else:
            self._spent.pop(name, None)


class MemoryCounts:
    """Counts, as `Counts` promises; no method waits."""

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.time) -> None:
        self._plan = plan
        self._clock = clock
        self._windows = {seconds: Windows(seconds) for seconds in SECONDS.values()}
        self._running: dict[str, int] = {}
        self._spending = {"day": Spending(), "month": Spending()}

    def check(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> None:
        """Check, as `Counts.check` promises."""
        counts, now = self._plan.of(client, own_limits), self._clock()
        for rate in counts.requests + counts.questions:
            self._check(rate, now)

    async def count(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> None:
        """Count, as `Counts.count` promises."""
        requests, now = self._plan.of(client, own_limits).requests, self._clock()
        for rate in requests:
            self._check(rate, now)
        self._add(requests)

    async def standing(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> Standing:
        """Look, as `Counts.standing` promises."""
        counts, now = self._plan.of(client, own_limits), self._clock()
        rates = counts.requests + counts.questions
        seen = [self._windows[rate.limit.seconds].seen(rate.name, now) for rate in rates]
        spent = []
        for budget in counts.budgets:
            spending = self._spending[budget.limit.period]
            spending.turn(budget.limit.window(now).name)
            spent.append(spending.spent(budget.name))
        running = [self._running.get(slot.name, 0) for slot in counts.slots]
        return standing_of(counts, seen, running, spent, now)

    async def admit(
        self, client: str, stream_id: str, tokens: int, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN
    ) -> Reservation:
        """Admit, as `Counts.admit` promises."""
        counts, now = self._plan.of(client, own_limits), self._clock()
        seen = [self._check(rate, now) for rate in counts.requests + counts.questions]
        self._add(counts.requests)
        running = self._running
        for slot in counts.slots:
            if running.get(slot.name, 0) >= slot.limit:
                raise no_slot(slot)
        statuses = [self._check_budget(count, tokens, now) for count in counts.budgets]
        for slot in counts.slots:
            running[slot.name] = running.get(slot.name, 0) + 1
        for budget in counts.budgets:
            self._spending[budget.limit.period].add(budget.name, tokens)
        self._add(counts.questions)
        return Reservation(
            client,
            stream_id,
            tokens,
            now,
            requests=status_of(counts, seen),
            status=tightest(statuses),
            own_limits=own_limits,
        )

    def settle(self, reservation: Reservation, tokens: int, *, refused: bool) -> None:
        """Settle, as `Counts.settle` promises."""
        counts = self._plan.of(reservation.client, reservation.own_limits)
        for slot in counts.slots:
            running = self._running[slot.name] - 1
            if running:
                self._running[slot.name] = running
            else:
                del self._running[slot.name]
        for budget in counts.budgets:
            spending = self._spending[budget.limit.period]
            if spending.window == budget.limit.window(reservation.asked_at).name:
                spending.add(budget.name, tokens - reservation.tokens)
        if refused:
            for question in counts.questions:
                self._windows[question.limit.seconds].take_back(question.name)

    def _add(self, rates: Sequence[Count[Rate]]) -> None:
        """Count in rates that were checked just before."""
        for rate in rates:
            self._windows[rate.limit.seconds].add(rate.name)

    def _check(self, count: Count[Rate], now: float) -> Seen:
        """Return what has been asked. Raises TooManyRequests when there is no room for more."""
        rate = count.limit
        seen = self._windows[rate.seconds].seen(count.name, now)
        if seen.is_full(rate):
            raise seen.refusal(rate, count.whose)
        return seen

    def _check_budget(self, count: Count[Budget], tokens: int, now: float) -> LimitStatus:
        """Return what would be left. Raises BudgetSpent and PayloadTooLarge."""
        budget = count.limit
        check_fits(budget, tokens)
        spending = self._spending[budget.period]
        spending.turn(budget.window(now).name)
        spent = spending.spent(count.name)
        if spent + tokens > budget.tokens:
            raise budget_spent(budget, spent, count.whose, now)
        return budget.status(spent + tokens, now)
