"""Which counts a client adds to, how much of everybody's may be one's, and memory for bodies that arrive."""

import pytest

from chat_sse.errors import Overloaded, TooManyRequests
from chat_sse.limits.bodies import BodyMemory
from chat_sse.limits.budget import Budget
from chat_sse.limits.headers import LimitStatus, limit_headers, tightest
from chat_sse.limits.plan import Count, OwnLimits, Plan, site_of
from chat_sse.limits.rates import Rate, Seen

ADDRESS, NETWORK, SITE = "203.0.113.9", "2001:db8:7:1::/64", "2001:db8:7::/48"


def told(counts: tuple[Count[int], ...]) -> list[tuple[str, int]]:
    return [(count.name, count.limit) for count in counts]


def test_an_address_a_network_and_a_key_have_their_own_counts_and_everybodys_is_the_last() -> None:
    plan = Plan(streams_per_client=2, streams=100)
    assert told(plan.of(ADDRESS).slots) == [(ADDRESS, 2), ("everybody", 100)]
    assert told(plan.of("key:ada").slots) == [("key:ada", 2), ("everybody", 100)]
    assert told(plan.of(NETWORK).slots) == [(NETWORK, 2), (SITE, 8), ("everybody", 100)]
    assert [count.whose for count in plan.of(NETWORK).slots] == [
        "per client",
        "per IPv6 /48 network",
        "for everybody together",
    ]


def test_a_site_has_four_times_what_a_client_has() -> None:
    counts = Plan(rate=Rate(5, 60), budget=Budget(10, "day")).of(NETWORK)
    assert [(count.name, count.limit) for count in counts.requests] == [
        (NETWORK, Rate(5, 60)),
        (SITE, Rate(20, 60)),
    ]
    assert [count.limit for count in counts.budgets] == [Budget(10, "day"), Budget(40, "day")]
    assert counts.questions == ()


def test_no_address_or_site_has_more_than_its_share_of_what_all_have_and_a_key_may() -> None:
    plan = Plan(
        rate=Rate(1000, 60),
        rate_total=Rate(200, 60),
        streams_per_client=50,
        streams=100,
        budget_total=Budget(1_000, "day"),
        share_percent=10,
        least_share_tokens=300,
    )
    counts = plan.of(ADDRESS)
    assert told(counts.slots) == [(ADDRESS, 10), ("everybody", 100)]
    assert [(count.name, count.limit) for count in counts.questions] == [
        (f"share of {ADDRESS}", Rate(20, 60)),
        ("everybody", Rate(200, 60)),
    ]
    assert [count.limit.tokens for count in counts.budgets] == [300, 1_000]
    key = plan.of("key:ada")
    assert told(key.slots) == [("key:ada", 50), ("everybody", 100)]
    assert [count.name for count in key.questions] == ["everybody"]
    assert [count.limit.tokens for count in key.budgets] == [1_000]


def test_a_share_that_the_clients_own_rate_keeps_already_is_not_counted_twice() -> None:
    def names(rate: Rate) -> list[str]:
        plan = Plan(rate=rate, rate_total=Rate(100, 60), share_percent=10)
        return [count.name for count in plan.of(ADDRESS).questions]

    assert names(Rate(10, 60)) == ["everybody"]
    assert names(Rate(11, 60)) == names(Rate(5, 3600)) == [f"share of {ADDRESS}", "everybody"]


@pytest.mark.parametrize(
    ("percent", "rate", "budget", "slots"),
    [(100, None, None, 7), (10, Rate(1, 60), Budget(10, "day"), 1), (50, Rate(2, 60), Budget(50, "day"), 3)],
)
def test_a_share_is_a_part_of_one_at_least_and_all_of_it_is_none(
    percent: int, rate: Rate | None, budget: Budget | None, slots: int
) -> None:
    assert Rate(5, 60).share(percent) == rate
    assert Budget(100, "day").share(percent, 0) == budget
    plan = Plan(streams=7, streams_per_client=99, share_percent=percent)
    assert plan.of(ADDRESS).slots[0].limit == (99 if percent == 100 else slots)


def test_a_tokens_own_limits_lower_the_servers_and_never_raise_them() -> None:
    plan = Plan(rate=Rate(10, 60), budget=Budget(100, "day"))

    def limits(own: OwnLimits) -> tuple[list[Rate], list[Budget]]:
        counts = plan.of("jwt:ada", own)
        return [count.limit for count in counts.requests], [count.limit for count in counts.budgets]

    assert limits(OwnLimits(rate=Rate(5, 60), budget=Budget(50, "day"))) == (
        [Rate(5, 60)],
        [Budget(50, "day")],
    )
    assert limits(OwnLimits(rate=Rate(50, 60), budget=Budget(500, "day"))) == (
        [Rate(10, 60)],
        [Budget(100, "day")],
    )
    assert limits(OwnLimits(rate=Rate(5, 3600), budget=Budget(500, "month"))) == (
        [Rate(5, 3600), Rate(10, 60)],
        [Budget(500, "month"), Budget(100, "day")],
    )


@pytest.mark.parametrize(
    ("client", "site"),
    [(NETWORK, SITE), (ADDRESS, None), ("user:x/64", None), ("key:ada", None)],
)
def test_only_an_ipv6_network_lies_in_a_site(client: str, site: str | None) -> None:
    assert site_of(client) == site


# Reading limits, and telling them.


def test_limits_are_read_as_they_are_written() -> None:
    assert Rate.parse("60/minute") == Rate(60, 60)
    assert [Rate.parse(f"1/{unit}") for unit in ("second", "hour", "day")] == [
        Rate(1, 1),
        Rate(1, 3600),
        Rate(1, 86_400),
    ]
    assert Budget.parse("5/month") == Budget(5, "month")
    assert (Rate.parse("off"), Budget.parse("off")) == (None, None)
    assert [Rate(1, seconds).unit for seconds in (1, 60, 3600, 86_400)] == ["second", "minute", "hour", "day"]


@pytest.mark.parametrize(
    ("seen", "wait"),
    [
        (Seen(0, 10, 30), 30),  # the next window, at whose begin all ten count, lets one in a tenth later
        (Seen(0, 20, 30), 60),  # twice too many: half of them must have gone
        (Seen(10, 5, 15), 15),  # half of the old ones must have gone
        (Seen(10, 5, 30), 0),
        (Seen(0, 10, 60), 0),
    ],
)
def test_a_wait_ends_when_one_more_is_let_in(seen: Seen, wait: float) -> None:
    assert seen.wait_seconds(Rate(10, 60)) == pytest.approx(wait + 0.002)


def test_what_is_left_is_never_negative_and_counts_whole_requests() -> None:
    assert Seen(0, 12, 15).status(Rate(10, 60)) == LimitStatus(10, 60, 0, 45)
    assert Seen(3, 5, 30).status(Rate(10, 60)) == LimitStatus(10, 60, 3, 30)
    assert Seen(3, 5, 30).status(Rate(10, 60), asking=0) == LimitStatus(10, 60, 4, 30)
    assert [Seen(4, here, 30).is_full(Rate(10, 60)) for here in (7, 8, 9)] == [False, True, True]


def test_the_tightest_of_several_is_told_under_the_clients_own_quota() -> None:
    own, all_, other = LimitStatus(9, 60, 5, 30), LimitStatus(99, 3600, 2, 1000), LimitStatus(99, 60, 7, 1)
    assert tightest([]) is None
    assert tightest([own, all_, other]) == LimitStatus(9, 60, 2, 1000)
    assert tightest([own, other]) == own


def test_header_fields_round_times_up() -> None:
    assert limit_headers(None, None) == {}
    assert limit_headers(None, LimitStatus(9, 60, 5, 29.1)) == {
        "RateLimit": '"tokens";r=5;t=30',
        "RateLimit-Policy": '"tokens";q=9;qu="tokens";w=60',
    }


@pytest.mark.parametrize(
    ("period", "now", "name", "end"),
    [
        ("day", 1_772_323_199, "2026-02-28", 1_772_323_200),
        ("month", 1_772_323_199, "2026-02", 1_772_323_200),
        ("month", 1_772_323_200, "2026-03", 1_775_001_600),
        ("month", 1_798_761_599, "2026-12", 1_798_761_600),
    ],
)
def test_windows_are_days_and_months_of_utc(period: str, now: float, name: str, end: float) -> None:
    window = Budget(1, period).window(now)
    assert (window.name, window.end) == (name, end)
    assert window.start <= now < window.end


# Bodies.


def test_bodies_share_a_memory_and_a_small_one_always_fits() -> None:
    total, free = 64 * 1_048_576, 16_384
    memory = BodyMemory(1_048_576)
    held = []
    for number in range(8):
        body = memory.body(f"10.0.0.{number}")
        body.add(b"x" * (total // 8 + free))
        held.append(body)
    assert memory.held == total
    with memory.body("10.0.0.99") as small:
        small.add(b"x" * free)
        assert memory.held == total
        with pytest.raises(Overloaded) as raised:
            small.add(b"x")
        assert raised.value.retry_after == 2
    held[0].__exit__()
    assert memory.held == total - total // 8
    with memory.body("10.0.0.99") as another:
        another.add(b"x" * (free + 1))
        another.add(b"x" * 9)
        assert (memory.held, len(another.content)) == (total - total // 8 + 10, free + 10)
    for body in held[1:]:
        body.__exit__()
    assert vars(memory)["_held"] == {}


def test_one_client_has_an_eighth_and_one_site_a_quarter_of_it() -> None:
    total, free = 64 * 1_048_576, 16_384
    memory = BodyMemory(1_048_576)
    with memory.body(ADDRESS) as body:
        body.add(b"x" * (total // 8 + free))
        with pytest.raises(TooManyRequests, match=f"limit: {total // 8} bytes"):
            body.add(b"x")
    bodies = [memory.body(f"2001:db8:7:{number}::/64") for number in range(3)]
    for body in bodies[:2]:
        body.add(b"x" * (total // 8 + free))
    with pytest.raises(TooManyRequests):
        bodies[2].add(b"x" * (free + 1))


def test_a_client_has_room_for_the_largest_body_at_least() -> None:
    memory = BodyMemory(100 * 1_048_576)
    with memory.body(ADDRESS) as body:
        body.add(bytes(100 * 1_048_576))
        assert memory.held == 100 * 1_048_576 - 16_384
