"""Which format a request asks for. Source: RFC 9110, 12.5.1 "Accept"."""

import re
from collections.abc import Mapping
from functools import lru_cache

from chat_sse.errors import NotAcceptable
from chat_sse.formats.base import Format

_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


# All clients together send a handful of values, and one takes longer to work out than a question to decode.
@lru_cache(maxsize=256)
def choose(formats: tuple[Format, ...], *, default: str, wanted: str | None, accept: str | None) -> Format:
    """Choose by `?format=`, or else by `Accept`. Raises NotAcceptable, with the list of what there is.

    Of formats that the client likes equally, one that it names wins over those it only lets pass (`*/*`);
    then the default, then the order of `formats`. A media type names the first format that has it; another
    one of the same type is chosen by `?format=`, or as the default.
    """
    if wanted is not None:
        named = next((fmt for fmt in formats if fmt.name == wanted), None)
        if named is None:
            raise _refusal(formats)
        return named
    ranges = _parse(accept or "") or {"*/*": 1.0}
    owners = {fmt.media_type: fmt for fmt in reversed(formats)}

    def rank(fmt: Format) -> tuple[float, bool, bool]:
        meant = fmt.media_type in ranges and owners[fmt.media_type] is fmt
        return _quality(fmt.media_type, ranges), meant, fmt.name == default

    best = max(formats, key=rank)  # the first of equals
    if _quality(best.media_type, ranges) <= 0:
        raise _refusal(formats)
    return best


def _refusal(formats: tuple[Format, ...]) -> NotAcceptable:
    offers = (f"?format={fmt.name} (Accept: {fmt.media_type})" for fmt in formats)
    return NotAcceptable(f"this server offers {', '.join(offers)}")


def _parse(accept: str) -> dict[str, float]:
    """Give each media range's weight, the higher one where a range stands twice."""
    ranges: dict[str, float] = {}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        if "/" in media and _WEIGHT.fullmatch(weight):
            ranges[media] = max(float(weight), ranges.get(media, 0.0))
    return ranges


def _quality(media_type: str, ranges: Mapping[str, float]) -> float:
    """Give the weight of the most specific range that covers a media type; 0 when none does."""
    kind = media_type.partition("/")[0]
    return next((ranges[media] for media in (media_type, f"{kind}/*", "*/*") if media in ranges), 0.0)
