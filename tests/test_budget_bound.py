"""The budget's bound on a prompt is never below what a real tokenizer counts."""

import sys
import time
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

import httpx2
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_sse.limits.budget import TOKENS_PER_PART, prompt_bound
from chat_sse.messages import Message, Question, TextPart
from chat_sse.upstreams.local import LocalModel, start_local_model
from tests.support import plain_http

# Each is larger in another normal form, or takes many tokens for its size.
STRANGE = (
    "\u0958\ufdfa\U0001d160\u0e33\u0344\u1e9b\u0323\U0001f469\u200d\U0001f469\u200d\U0001f467a\u0301\ufb2c"
)

texts = st.text(min_size=1, max_size=40) | st.text(alphabet=STRANGE, min_size=1, max_size=40)
visible = texts.filter(lambda text: bool(text.strip()) and "\x00" not in text)
contents = visible | st.lists(visible.map(lambda text: TextPart(text=text)), min_size=1, max_size=60)


def question(*contents: Any) -> Question:
    roles: tuple[Literal["user", "assistant"], ...] = ("user", "assistant")
    messages = [Message(role=roles[n % 2], content=content) for n, content in enumerate(contents)]
    return Question(messages=messages, model="m", max_output_tokens=1)


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with start_local_model() as running:
        yield running


@pytest.fixture(scope="module")
def tokenizer(model: LocalModel) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {model.api_key}", **model.request_headers}
    with plain_http.Client(
        base_url=model.base_url.removesuffix("/v1"), headers=headers, timeout=20
    ) as client:
        yield client


def count(tokenizer: httpx2.Client, asked: Question) -> int:
    """Count the tokens that the model's template makes of a conversation."""
    body = {"messages": msgspec.to_builtins(asked.messages)}
    prompt = tokenizer.post("/apply-template", json=body).raise_for_status().json()["prompt"]
    reply = tokenizer.post("/tokenize", json={"content": prompt, "parse_special": True}).raise_for_status()
    return len(reply.json()["tokens"])


@given(st.lists(contents, min_size=1, max_size=5))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_history_has_more_tokens_than_its_bound(tokenizer: httpx2.Client, history: list[Any]) -> None:
    asked = question(*history)
    assert count(tokenizer, asked) <= prompt_bound(asked)


@given(visible)
@settings(max_examples=300)
def test_a_text_is_bounded_in_each_normal_form(text: str) -> None:
    bound = prompt_bound(question(text)) - prompt_bound(question(""))
    for form in ("NFC", "NFKC", "NFD", "NFKD"):
        normal = unicodedata.normalize(form, text)
        assert bound >= len(normal.encode("utf-8", "surrogatepass"))


def test_each_part_has_its_own_share() -> None:
    parts = [TextPart(text="a")] * 1_700
    assert prompt_bound(question(parts)) >= 1_700 * (1 + TOKENS_PER_PART)
    assert prompt_bound(question(parts)) >= 3_429  # as counted by a server that separates parts


@pytest.mark.parametrize(("composed", "decomposed"), [("NFC", "NFD"), ("NFKC", "NFKD")])
def test_no_composed_character_has_more_bytes_than_its_decomposition(
    composed: Literal["NFC", "NFKC"], decomposed: Literal["NFD", "NFKD"]
) -> None:
    for char in map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1))):
        if unicodedata.is_normalized(composed, char):
            assert len(char.encode()) <= len(unicodedata.normalize(decomposed, char).encode())


@pytest.mark.parametrize("marks", ["\u0315\u0300", "\u0301\u0323", "\u3099\u0301"])
def test_a_long_run_of_combining_marks_is_bounded_in_a_moment(marks: str) -> None:
    asked = question("a" + marks * 50_000)
    began = time.process_time()
    bound = prompt_bound(asked)
    assert time.process_time() - began < 0.5  # normalising it in one piece takes 8 s
    assert bound >= len(marks.encode()) * 50_000
