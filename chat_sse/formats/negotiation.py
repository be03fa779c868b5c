"""Which format a request asks for. Source: RFC 9110, 12.5.1 "Accept"."""

from collections.abc import Mapping

from chat_sse.errors import NotAcceptable
from chat_sse.formats.base import Format


def choose(formats: Mapping[str, Format], *, default: str, wanted: str | None, accept: str | None) -> Format:
    """Choose by `?format=`, or else by `Accept`. Raises NotAcceptable, with the list of what there is.

    Of formats that the client likes equally, the default wins, then the order of `formats`.
    """
    if wanted is not None:
        if wanted not in formats:
            raise NotAcceptable(f"?format= offers {', '.join(formats)}")
        return formats[wanted]
    ranges = _parse(accept or "*/*")
    ordered = [formats[default], *(fmt for name, fmt in formats.items() if name != default)]
    # max keeps the first of equals
    best = max(ordered, key=lambda fmt: _quality(fmt.media_type, ranges))
    if _quality(best.media_type, ranges) <= 0:
        raise NotAcceptable(f"Accept offers {', '.join(fmt.media_type for fmt in formats.values())}")
    return best


def _parse(accept: str) -> list[tuple[str, float]]:
    ranges = []
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            ranges.append((media, float(weight)))
        except ValueError:
            continue  # a weight that is no number says nothing
    return ranges


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Give the weight of the most specific range that covers a media type; 0 when none does."""
    for candidate in (media_type, media_type.split("/", maxsplit=1)[0] + "/*", "*/*"):
        for media, weight in ranges:
            if media == candidate:
                return weight
    return 0.0
