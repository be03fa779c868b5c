"""Where a client stands with its limits, and the header fields that tell it.

Source: draft-ietf-httpapi-ratelimit-headers-11, lists of RFC 9651 strings with parameters: `q` quota, `qu`
its unit where it is not requests, `w` window, `r` left, `t` seconds until the window is over.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import msgspec


class LimitStatus(msgspec.Struct, frozen=True):
    """Where a client stands with one limit."""

    quota: int
    window_seconds: int
    left: int
    reset_seconds: float


def tightest(statuses: Sequence[LimitStatus]) -> LimitStatus | None:
    """Return the first limit, the client's own, with no more left than any has. None where there is none."""
    if not statuses:
        return None
    own, least = statuses[0], min(statuses, key=lambda status: status.left)
    return LimitStatus(own.quota, own.window_seconds, least.left, least.reset_seconds)


def limit_headers(requests: LimitStatus | None, tokens: LimitStatus | None) -> dict[str, str]:
    """Write `RateLimit` and `RateLimit-Policy`; none where nothing is limited."""
    if requests is None and tokens is None:
        return {}
    left, policies = [], []
    if requests is not None:
        left.append(f'"requests";r={requests.left};t={math.ceil(requests.reset_seconds)}')
        policies.append(_policy("requests", requests.quota, requests.window_seconds))
    if tokens is not None:
        left.append(f'"tokens";r={tokens.left};t={math.ceil(tokens.reset_seconds)}')
        policies.append(_policy("tokens", tokens.quota, tokens.window_seconds))
    return {"RateLimit": ", ".join(left), "RateLimit-Policy": ", ".join(policies)}


@lru_cache(16)
def _policy(name: str, quota: int, window_seconds: int) -> str:
    unit = "" if name == "requests" else f';qu="{name}"'
    return f'"{name}";q={quota}{unit};w={window_seconds}'
