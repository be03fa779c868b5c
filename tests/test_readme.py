"""What the README shows is what happens: its examples, run as they stand."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Page

from tests.support import plain_http
from tests.support.browser import chromium
from tests.support.readme import README, ROOT, code_block
from tests.support.service import RunningService, parse_sse, serve
from tests.support.upstream import Finish, Pause, Say, ScriptedUpstream

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page()


@pytest.fixture
def at_the_service(page: Page, service: RunningService) -> Page:
    page.goto(f"{service.url}/")
    return page


def shape(stream: bytes) -> list[dict[str, Any]]:
    """Give a stream's events with their values blanked."""
    return [dict.fromkeys(event, "") | {"type": event["type"]} for _, event in parse_sse(stream)]


def test_the_curl_example_shows_what_the_readme_says() -> None:
    command = code_block("sh", "curl -N")
    shown = code_block("text", "retry: 2000").replace("…\n\n", "").encode() + b"\n"
    with serve() as embedded:
        done = subprocess.run(
            ["bash", "-c", command.replace(ADDRESS, embedded.url)],
            capture_output=True,
            timeout=50,
            check=True,
        )
    said, promised = shape(done.stdout), shape(shown)
    assert said[:3] == promised[:3]
    assert said[-1] == promised[-1]
    assert done.stdout.startswith(b"retry: 2000\ndata: ")


def test_the_terminals_examples_ask_and_keep_a_conversation(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(Say("Four."), Finish())
    subprocess.run(["git", "init", "-q", "repository"], cwd=tmp_path, check=True, timeout=50)
    done = subprocess.run(
        ["bash", "-ec", code_block("sh", "chat-sse ask")],
        cwd=tmp_path / "repository",
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "CHAT_SSE_URL": service.url,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=50,
        check=True,
    )
    assert done.stdout == b"Four.\nFour.\n"
    assert upstream.calls[1].body["messages"][0]["content"].startswith("What does this change?")
    assert (tmp_path / ".local/state/chat-sse/review.json").exists()


def test_every_section_is_in_the_table_of_contents_and_every_link_leads_somewhere() -> None:
    text = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^(##+) (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for _, title in headings}
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert {target[1:] for target in targets if target.startswith("#")} <= anchors
    contents = re.findall(r"\[([^]]*)\]\(#", text.partition("\n## ")[0])
    sections = [title for depth, title in headings if depth == "##"]
    assert ["How it works", *(f"{title[0].upper()}{title[1:]}" for title in contents)] == sections
    files = [target.partition("#")[0] for target in targets if not re.match(r"#|https?:", target)]
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("holding", ["await fetch", "new EventSource"])
def test_the_examples_for_a_page_run_in_a_browser(
    at_the_service: Page, service: RunningService, upstream: ScriptedUpstream, holding: str
) -> None:
    upstream.answer(Say("Hel"), Pause(0.7), Say("lo, "), Say("世界"), Finish())
    code = code_block("js", holding).replace(ADDRESS, service.url)
    until_closed = (
        "while (globalThis.source?.readyState < 2) await new Promise((done) => setTimeout(done, 20));"
    )
    code = code.replace("const source", "const source = globalThis.source")
    text = at_the_service.evaluate(f"async () => {{ {code}\n{until_closed}\nreturn text; }}")
    assert text == "Hello, 世界"
    assert upstream.paid_calls == 1


def test_the_client_modules_example_runs_in_a_browser(
    at_the_service: Page, service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hel"), Pause(0.7), Say("lo"), Finish())
    code = code_block("js", "ask.js").replace(ADDRESS, service.url)
    code = re.sub(r'^import (\{.*\}) from (".*");', r"const \1 = await import(\2);", code)
    assert at_the_service.evaluate(f"async () => {{ {code}\nreturn text; }}") == "Hello"
    assert upstream.paid_calls == 1


def test_the_error_bodys_example_has_the_fields_that_errors_have(service: RunningService) -> None:
    shown = msgspec.json.decode(code_block("json", "for the person"))
    assert set(shown) == set(plain_http.get(f"{service.url}/nowhere").json())


def test_the_example_for_openais_sdk_runs(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hel"), Say("lo"), Finish())
    code = code_block("python", "from openai import").replace(ADDRESS, service.url)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert ran.stdout == "Hello"
    assert upstream.calls[0].body["model"] == "gpt-4o-mini"
