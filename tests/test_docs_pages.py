"""/docs and /redoc in a real Chromium: they work, and they talk to nobody but this service."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from chat_sse.api.openapi.operations import OPERATIONS
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.browser import chromium
from tests.support.service import RunningService, serve
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream

ARTIFACTS = Path(__file__).parent / ".artifacts"

WAIT_MILLISECONDS = 20_000
expect.set_options(timeout=WAIT_MILLISECONDS)


def screenshot(page: Page, name: str) -> None:
    """Keep a picture for a person to look at."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def is_dark(page: Page, title: str) -> bool:
    """Tell whether a title is written in a light colour."""
    colour = page.locator(title).first.evaluate("title => getComputedStyle(title).color")
    return int(re.findall(r"\d+", colour)[0]) > 128


@contextmanager
def clean_page(service: RunningService, path: str) -> Iterator[Page]:
    """Open a page; at the exit nothing may have gone elsewhere or been blocked, and no script have failed."""
    elsewhere: list[str] = []
    faults: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(WAIT_MILLISECONDS)
        page.on("request", lambda sent: elsewhere.append(sent.url))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(service.url + path)
        yield page
    assert [url for url in elsewhere if not url.startswith((service.url, "data:"))] == []
    assert faults == []


def test_swagger_ui_shows_every_operation_and_the_stream_and_asks_the_real_service(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("from the "), Hold(gate), Say("real service"), Finish("stop"))
    with clean_page(service, "/docs") as page:
        expect(page.locator(".opblock-summary")).to_have_count(len(OPERATIONS))
        page.locator("#operations-Ask-ask .opblock-summary-control").click()
        operation = page.locator("#operations-Ask-ask")
        example = operation.locator(".response", has_text="The answer, as it comes.")
        expect(example.locator(".response-controls select").first).to_have_value("text/event-stream")
        expect(example).to_contain_text('data: {"type":"delta","content":"Hello"}')
        screenshot(page, "docs-swagger-operation")
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        expect(operation.locator(".live-stream")).to_contain_text(
            'data: {"type":"delta","content":"from the "}'
        )
        gate.set()
        live = operation.locator(".live-responses-table .response")
        expect(live.locator(".response-col_status")).to_contain_text("200")
        expect(live).to_contain_text('data: {"type":"delta","content":"real service"}')
        expect(operation.locator(".live-stream")).to_have_count(0)
        screenshot(page, "docs-swagger-answer")
        assert not is_dark(page, ".info .title")
        page.emulate_media(color_scheme="dark")
        assert is_dark(page, ".info .title")
        screenshot(page, "docs-swagger-dark")
    [call] = upstream.calls
    assert call.body["messages"][-1] == {"role": "user", "content": "Hello!"}


def test_swagger_ui_sends_the_key_that_it_is_given(upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("with a key"), Finish("stop"))
    key = "canary-0123456789"
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_API_KEYS": f"a:{key}"}
    with serve(env) as service, clean_page(service, "/docs") as page:
        page.get_by_role("button", name="Authorize").click()
        field = page.locator("#auth-bearer-value")
        field.fill(key)
        page.locator("form", has=field).get_by_role("button", name="Apply").click()
        page.locator(".close-modal").click()
        operation = page.locator("#operations-Ask-ask")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        expect(operation.locator(".live-responses-table .response")).to_contain_text("with a key")


def test_swagger_ui_asks_by_url_as_well(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("by URL"), Finish("stop"))
    with clean_page(service, "/docs") as page:
        operation = page.locator("#operations-Ask-ask_by_url")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.locator("tr[data-param-name=q] input").fill("Why?")
        operation.get_by_role("button", name="Execute").click()
        expect(operation.locator(".live-responses-table .response")).to_contain_text('"content":"by URL"')
    [call] = upstream.calls
    assert call.body["messages"][-1] == {"role": "user", "content": "Why?"}


def test_redoc_shows_every_operation_and_the_stream(service: RunningService) -> None:
    with clean_page(service, "/redoc") as page:
        assert not is_dark(page, "h1")
        page.emulate_media(color_scheme="dark")
        page.reload()  # it looks once
        assert is_dark(page, "h1")
        expect(page.get_by_text("API docs by")).to_be_visible()
        page.get_by_role("link", name="Ask", exact=True).click()  # it draws what is in view
        for operation in (
            "post /ask",
            "get /ask",
            "get /ask/{stream_id}",
            "get /ask/{chat_id}/stream",
            "delete /ask/{stream_id}",
        ):
            expect(page.get_by_role("link", name=operation, exact=True)).to_be_visible()
        page.get_by_role("link", name="post /ask", exact=True).click()
        example = page.locator("code", has_text="retry: 2000").first
        expect(example).to_contain_text('data: {"type":"delta","content":"Hello"}')
        screenshot(page, "docs-redoc")


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/docs", "text/html"),
        ("/redoc", "text/html"),
        ("/docs/assets/swagger-ui-bundle.js", "text/javascript"),
        ("/docs/assets/redoc.standalone.js", "text/javascript"),
        ("/docs/assets/swagger-ui.css", "text/css"),
    ],
)
def test_each_file_is_utf_8_under_the_strict_policy_and_cached_by_its_tag(
    service: RunningService, path: str, media_type: str
) -> None:
    first = plain_http.get(service.url + path)
    assert first.status_code == 200
    assert first.headers["content-type"] == f"{media_type}; charset=utf-8"
    policy = first.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    # Redoc colours its samples by style attributes; nothing else is let in anywhere.
    assert "unsafe" not in policy.replace("style-src-attr 'unsafe-inline'" if path == "/redoc" else "-", "")
    assert first.headers["x-content-type-options"] == "nosniff"
    assert first.headers["referrer-policy"] == "no-referrer"
    again = plain_http.get(service.url + path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_missing_asset_is_a_404_with_the_error_body(service: RunningService) -> None:
    response = plain_http.get(f"{service.url}/docs/assets/swagger-ui-bundle.js.map")
    assert (response.status_code, response.json()["error"]) == (404, "not_found")
