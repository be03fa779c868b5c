"""The AI SDK's messages, turned into OpenAI's before anything else sees them."""

from typing import Any

import msgspec
import pytest

from chat_sse.errors import InvalidRequest
from chat_sse.messages import MAX_CHAT_ID_CHARS, AskRequest, decode_ask

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def decoded(*messages: Any, **fields: Any) -> AskRequest:
    return decode_ask(msgspec.json.encode({"messages": messages, **fields}))


def normalised(*messages: Any) -> Any:
    return msgspec.to_builtins(decoded(*messages).messages)


def user(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "m1", "role": "user", "parts": parts, **fields}


def assistant(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "m2", "role": "assistant", "parts": parts, **fields}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words, "state": "done"}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_a_single_text_part_becomes_plain_content() -> None:
    assert normalised(user(text("Hello!"))) == [{"role": "user", "content": "Hello!"}]


@pytest.mark.parametrize("media_type", ["image/png", "image/*", "image", "IMAGE/JPEG"])
@pytest.mark.parametrize("url", [PIXEL, "https://example.org/cat.jpg"])
def test_an_image_file_becomes_an_image_url_in_its_place(media_type: str, url: str) -> None:
    file = {"type": "file", "mediaType": media_type, "url": url, "filename": "cat"}
    assert normalised(user(file, text("What is it?"))) == [
        {"role": "user", "content": [image(url), {"type": "text", "text": "What is it?"}]}
    ]


def test_what_stood_beside_an_assistants_text_is_dropped() -> None:
    aside = [
        {"type": "step-start"},
        {"type": "reasoning", "text": "Hmm", "id": "r"},
        {"type": "source-url", "sourceId": "s", "url": "https://example.org"},
        {"type": "source-document", "sourceId": "s", "mediaType": "a/b", "title": "t"},
        {"type": "source", "source": {"id": "s"}},
        {"type": "reasoning-file", "mediaType": "image/png", "url": PIXEL},
    ]
    turns = normalised(user(text("Hi")), assistant(*aside, text("4"), text("2")), user(text("Why?")))
    assert turns[1] == {"role": "assistant", "content": "42"}


@pytest.mark.parametrize("kind", ["tool-weather", "dynamic-tool", "data-chart", "teapot"])
def test_parts_of_kinds_that_are_not_known_are_passed_over(kind: str) -> None:
    part = {"type": kind, "state": "output-available", "input": {"text": "x"}, "data": [1]}
    turns = normalised(user(text("Hi"), part), assistant(part, text("42"), part), user(text("Why?")))
    assert [turn["content"] for turn in turns] == ["Hi", "42", "Why?"]


@pytest.mark.parametrize(
    "cut",
    [
        {"content": ""},
        {"content": " "},
        {"content": None},
        {"content": []},
        {"content": [{"type": "text", "text": ""}]},
        {},
        {"parts": None},
        {"parts": [{"type": "tool-weather"}]},
    ],
)
def test_an_assistants_turn_of_which_no_word_arrived_is_left_out(cut: dict[str, Any]) -> None:
    turns = normalised(user(text("Hi")), {"role": "assistant", **cut}, user(text("Again")))
    assert [turn["content"] for turn in turns] == ["Hi", "Again"]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_is_refused_with_what_to_do(role: str) -> None:
    with pytest.raises(InvalidRequest, match="CHAT_SSE_SYSTEM_PROMPT"):
        decoded({"role": role, "content": "Obey"}, user(text("Hi")))


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (r"a\ud83d", "a\ufffd"),
        (r"\udc4b\ud83d\udc4b", "\ufffd\U0001f44b"),
        (r"\ud83d\ud83d\udc4b.", "\ufffd\U0001f44b."),
        (r"\\ud83d", r"\ud83d"),
    ],
)
def test_half_a_character_becomes_the_replacement_character(sent: str, read: str) -> None:
    body = b'{"messages":[{"role":"user","content":"%s"}]}' % sent.encode()
    [message] = decode_ask(body).messages
    assert message.content == read


@pytest.mark.parametrize("parts", [[{"type": "step-start"}], [text("")], [text(" \n")]])
def test_an_assistants_turn_that_was_cut_before_its_first_word_is_left_out(parts: list[Any]) -> None:
    turns = normalised(user(text("Hi")), assistant(*parts), user(text("Again")))
    assert [turn["role"] for turn in turns] == ["user", "user"]


def test_ai_sdk_4s_content_beside_parts_is_not_said_twice() -> None:
    both = assistant(
        {"type": "step-start"},
        {"type": "reasoning", "reasoning": "Hmm", "details": []},
        text("42"),
        content="42",
        createdAt="2026-01-01",
        revisionId="x",
    )
    turns = normalised(user(text("Hi"), content="Hi"), both, user(text("Why?"), content="Why?"))
    assert [turn["content"] for turn in turns] == ["Hi", "42", "Why?"]


def test_ai_sdk_4s_attachments_become_images() -> None:
    attachment = {"name": "cat.png", "contentType": "image/png", "url": PIXEL}
    for content in ("Look", ""):
        parts = [text(content)] if content else []
        message = user(*parts, content=content, experimental_attachments=[attachment])
        said = [{"type": "text", "text": content}] if content else []
        assert normalised(message) == [{"role": "user", "content": [*said, image(PIXEL)]}]


@pytest.mark.parametrize(
    ("message", "where"),
    [
        (user(text("Hi"), {"type": 7}), "$.messages[1].parts[1].type"),
        (user(text("Hi"), "teapot"), "$.messages[1].parts[1]"),
        (user({"type": "tool-weather", "state": "output-available"}), "$.messages[1].parts"),
        (user({"text": "Hi"}), "$.messages[1].parts[0]"),
        (user({"type": "text"}), "$.messages[1].parts[0]"),
        (user({"type": "file", "mediaType": "application/pdf", "url": PIXEL}), "$.messages[1].parts[0]"),
        (user({"type": "file", "mediaType": "image/png", "url": "http://x/"}), "$.messages[1].parts[0]"),
        (user({"type": "file", "mediaType": "image/png", "url": "file:///x"}), "$.messages[1].parts[0]"),
        (assistant({"type": "file", "mediaType": "image/png", "url": PIXEL}), "$.messages[1].parts"),
        (user({"type": "step-start"}), "$.messages[1].parts"),
        (user(text("")), "$.messages[1].parts"),
        (user(text("  ")), "$.messages[1].content"),
        (user(), "$.messages[1].content"),
        ({"role": "system", "parts": [text("Obey")]}, "$.messages[1].role"),
        ({"role": "data", "content": "x"}, "$.messages[1].role"),
        (
            user(content="x", experimental_attachments=[{"contentType": "text/csv", "url": PIXEL}]),
            "$.messages[1].experimental_attachments[0]",
        ),
    ],
)
def test_what_cannot_be_passed_on_is_refused_with_its_path(message: Any, where: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decoded({"role": "user", "content": "Hi"}, message)
    assert f"at `{where}`" in caught.value.details


def test_a_conversation_of_nothing_but_cut_answers_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        decoded(assistant({"type": "step-start"}))


def test_the_bodys_id_is_kept_as_the_chats_and_a_strange_one_is_ignored() -> None:
    assert decoded(user(text("Hi")), id="chat-1").id == "chat-1"
    for strange in (7, None, "", "x" * (MAX_CHAT_ID_CHARS + 1), ["a"]):
        assert decoded(user(text("Hi")), id=strange).id is None
