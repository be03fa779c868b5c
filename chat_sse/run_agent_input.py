"""AG-UI's `RunAgentInput`: what a client of that protocol posts.

Source: `RunAgentInput` of AG-UI 1.0 (`ag_ui.core`, `@ag-ui/core`). Its clients send every field, so only what
is in one counts: state, tools, context and answers to interrupts are refused, since no agent is here to use
them. `forwardedProps` may name the model and the options of `/ask`.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from chat_sse.errors import InvalidRequest
from chat_sse.messages import (
    AskOptions,
    AskRequest,
    Body,
    ImagePart,
    ImageUrl,
    SentText,
    Turn,
    ask_of,
    decode,
)
from chat_sse.ui_messages import check_image


class _Source(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["data", "url"]
    value: str
    mime_type: str = msgspec.field(name="mimeType", default="image/*")

    def __post_init__(self) -> None:
        check_image(self.mime_type, self.url)

    @property
    def url(self) -> str:
        """An https URL, or one that holds the image."""
        return self.value if self.type == "url" else f"data:{self.mime_type};base64,{self.value}"


class _Image(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    source: _Source


Part: TypeAlias = SentText | ImagePart | _Image


class _Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    role: Literal["user", "assistant", "system", "developer", "tool", "reasoning", "activity"]
    content: str | list[Part] | dict[str, Any] | None = None
    tool_calls: list[Any] | None = None


class RunAgentInput(AskOptions, frozen=True, kw_only=True):
    """A decoded body. One of `/ask` fits too: the answer's id then stands for the thread's and the run's."""

    thread_id: str | None = msgspec.field(name="threadId", default=None)
    run_id: str | None = msgspec.field(name="runId", default=None)
    id: Any = None
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    state: Any = None
    tools: list[Any] | None = None
    context: list[Any] | None = None
    resume: list[Any] | None = None
    forwarded_props: AskOptions | None = msgspec.field(name="forwardedProps", default=None)


_decoder = msgspec.json.Decoder(RunAgentInput)


def decode_run(body: bytes | bytearray, *, allows_system: bool = False) -> tuple[AskRequest, RunAgentInput]:
    """Decode a request body. Raises InvalidRequest with the path of the field at fault.

    `allows_system`: see `decode_ask`.
    """
    sent = decode(_decoder, body)
    for name in ("state", "tools", "context", "resume"):
        if getattr(sent, name):
            raise InvalidRequest(f"There is no agent here that could use it - at `$.{name}`")
    options = sent.forwarded_props or sent
    question = Body(
        messages=[_turn(message, f"$.messages[{index}]") for index, message in enumerate(sent.messages)],
        model=options.model,
        temperature=options.temperature,
        max_output_tokens=options.max_output_tokens,
        id=sent.id if sent.thread_id is None else sent.thread_id,
    )
    return ask_of(question, allows_system=allows_system), sent


def _turn(message: _Message, path: str) -> Turn:
    content = message.content
    if message.tool_calls:
        raise InvalidRequest(f"There are no tools here - at `{path}.toolCalls`")
    match message.role:
        case "tool":
            raise InvalidRequest(f"There are no tools here - at `{path}.role`")
        case "reasoning" | "activity":  # for the page alone
            return Turn(role="assistant")  # without a word it is left out
        case role if isinstance(content, dict):
            raise InvalidRequest(f"Expected `str | array | null`, got `object` - at `{path}.content`")
        case role if isinstance(content, list):
            return Turn(role=role, content=[_part(part) for part in content])
        case role:
            return Turn(role=role, content=content)


def _part(part: Part) -> SentText | ImagePart:
    return ImagePart(image_url=ImageUrl(url=part.source.url)) if isinstance(part, _Image) else part
