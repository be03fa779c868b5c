"""Wire formats: entries of a log go in, bytes that some client understands come out.

Each format is one file: a pure encoder and the response that sends it. `base` says what a format promises,
`negotiation` which one a request asks for, `client_stream` how bytes reach a client that may leave or stall.

A new format is one file and one line in FORMATS: what `?format=` and CHAT_SSE_DEFAULT_FORMAT accept, what is
negotiated and what the OpenAPI document shows follow from there. Where its clients ask in words of their
own, a module beside `messages.py` reads those.

May import: errors, events, and what is asked (messages and its neighbours). Begin with `base.py`, then
`text.py`, the shortest.
"""

from chat_sse.formats.ag_ui import AgUiFormat
from chat_sse.formats.ai_sdk import AiSdkFormat
from chat_sse.formats.base import Format
from chat_sse.formats.html_fragments import HtmlFormat
from chat_sse.formats.json_body import JsonFormat
from chat_sse.formats.openai import OpenAiBodyFormat, OpenAiFormat
from chat_sse.formats.sse import SseFormat
from chat_sse.formats.text import TextFormat

# In this order they are offered; of formats with one media type, `Accept` means the first.
FORMATS: tuple[type[Format], ...] = (
    SseFormat,
    TextFormat,
    JsonFormat,
    AiSdkFormat,
    HtmlFormat,
    AgUiFormat,
    *(OpenAiFormat, OpenAiBodyFormat),
)


def formats_at(root: str = "/") -> tuple[type[Format], ...]:
    """Return the formats of one root: those of `/` share `/ask`, others have addresses of their own."""
    return tuple(kind for kind in FORMATS if kind.root == root)


def wire_at(path: str) -> type[Format]:
    """Return the format whose root a path lies under, and whose shape errors there have."""
    return next((kind for kind in FORMATS if kind.root != "/" and path.startswith(kind.root)), Format)
