"""What this server admits of what a client asks: models, lengths, images."""

from itertools import takewhile

import msgspec

from chat_sse.errors import InvalidRequest, PayloadTooLarge
from chat_sse.messages import SYSTEM_ROLES, AskRequest, ImagePart, Message, Question, TextPart

CONVERSATION_TOO_LONG = (
    "This conversation has grown too long for me. Please start a new one with what matters of it."
)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What this server admits."""

    models: tuple[str, ...]
    """The allow-list; the first is the default."""
    max_messages: int
    max_chars: int
    """Of all text together."""
    max_output_tokens: int
    data_images_only: bool = False
    """Whether an image must come in its message: a server that fetches URLs would fetch private ones too."""
    allows_system: bool = False
    """Whether a conversation may hold messages of the roles `system` and `developer`."""
    keeps_newest: bool = False
    """Whether of a conversation that is too long the newest turns are taken, instead of none."""


def admit(ask: AskRequest, policy: Policy, client: str = "") -> Question:
    """Apply the server's limits and defaults. Raises InvalidRequest or PayloadTooLarge."""
    messages = _newest(ask.messages, policy) if policy.keeps_newest else ask.messages
    if len(messages) > policy.max_messages:
        raise InvalidRequest(
            f"Expected at most {policy.max_messages} messages - at `$.messages`",
            content=CONVERSATION_TOO_LONG,
        )
    if sum(map(_chars_of, messages)) > policy.max_chars:
        raise PayloadTooLarge(
            f"Expected at most {policy.max_chars} characters of text - at `$.messages`",
            content=CONVERSATION_TOO_LONG if len(messages) > 1 else None,
        )
    if policy.data_images_only and any(map(_links_image, messages)):
        raise InvalidRequest("Expected images as `data:image/` URLs - at `$.messages`")
    model = ask.model or policy.models[0]
    if model not in policy.models:
        allowed = ", ".join(policy.models)
        raise InvalidRequest(f"This server offers {allowed} - at `$.model`")
    wanted = ask.max_output_tokens or policy.max_output_tokens
    return Question(
        messages=messages,
        model=model,
        temperature=ask.temperature,
        max_output_tokens=min(wanted, policy.max_output_tokens),
        client=client,
        chat_id=ask.id,
    )


def _chars_of(message: Message) -> int:
    if isinstance(message.content, str):
        return len(message.content)
    return sum(len(part.text) for part in message.content if isinstance(part, TextPart))


def _newest(messages: list[Message], policy: Policy) -> list[Message]:
    """Return the newest turns that fit, from one of the user's on, and the system messages at the beginning.

    At least the last turn.
    """
    system = list(takewhile(lambda message: message.role in SYSTEM_ROLES, messages))
    messages = messages[len(system) :]
    start, chars = len(messages), sum(map(_chars_of, system))
    while start > max(0, len(system) + len(messages) - policy.max_messages):
        chars += _chars_of(messages[start - 1])
        if chars > policy.max_chars:
            break
        start -= 1
    while 0 < start < len(messages) and messages[start].role != "user":
        start += 1
    return system + (messages[start:] or messages[-1:])


def _links_image(message: Message) -> bool:
    return not isinstance(message.content, str) and any(
        isinstance(part, ImagePart) and not part.image_url.url.startswith("data:") for part in message.content
    )
