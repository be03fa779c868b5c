"""Which format a request asks for. Source: RFC 9110, 12.5.1 "Accept"."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from chat_sse.errors import NotAcceptable
from chat_sse.formats.base import Format

# HTTP clients list these, with `*/*` beside them, for whatever they ask (axios does): they want none of them.
USUAL_TYPES = ("application/json", "text/plain")

_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


# Clients send few different values, and working one out takes longer than decoding a question.
@lru_cache(maxsize=256)
def choose(formats: tuple[Format, ...], *, default: str, wanted: str | None, accept: str | None) -> Format:
    """Return the format that `?format=` names, or else the best for `Accept`.

    Of formats with the same weight, one whose media type is named wins over those that a wildcard covers,
    unless it is one of USUAL_TYPES; then the default, then the order of `formats`. A media type names the
    first format that has it; another format of the same type is chosen by `?format=`, or as the default.

    Raises NotAcceptable, which lists the formats.
    """
    if wanted is not None:
        named = next((fmt for fmt in formats if fmt.name == wanted), None)
        if named is None:
            raise NotAcceptable(offer(formats))
        return named
    ranges = _parse(accept or "") or {"*/*": 1.0}
    owners = {fmt.media_type: fmt for fmt in reversed(formats)}

    def rank(fmt: Format) -> tuple[float, bool, bool]:
        is_named = fmt.media_type in ranges and owners[fmt.media_type] is fmt
        if fmt.media_type in USUAL_TYPES and ranges.get("*/*") == ranges.get(fmt.media_type):
            is_named = False
        return _quality(fmt.media_type, ranges), is_named, fmt.name == default

    best = max(formats, key=rank)  # the first of equals
    if _quality(best.media_type, ranges) <= 0:
        raise NotAcceptable(offer(formats))
    return best


def offer(formats: Iterable[Format | type[Format]]) -> str:
    """Return what there is to choose from, as the details of NotAcceptable."""
    offers = (
        f"?format={fmt.name} (Accept: {fmt.media_type})" if fmt.root == "/" else f"Accept: {fmt.media_type}"
        for fmt in formats
    )
    return f"this server offers {', '.join(offers)}"


def _parse(accept: str) -> dict[str, float]:
    """Return each media range's weight; the highest where a range is given twice."""
    ranges: dict[str, float] = {}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        if "/" in media and _WEIGHT.fullmatch(weight):
            ranges[media] = max(float(weight), ranges.get(media, 0.0))
    return ranges


def _quality(media_type: str, ranges: Mapping[str, float]) -> float:
    """Return the weight of the most specific range that covers a media type; 0 when none does."""
    kind = media_type.partition("/")[0]
    return next((ranges[media] for media in (media_type, f"{kind}/*", "*/*") if media in ranges), 0.0)
