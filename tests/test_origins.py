"""Which pages ALLOWED_ORIGIN names: the same ones may be read by CORS and may spend."""

import re
from collections.abc import Iterator

import pytest

from chat_sse.access.origin import Origins
from chat_sse.origins import origin_regex
from chat_sse.settings import SettingsError, load_settings
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, refused_start, serve
from tests.support.upstream import ScriptedUpstream

EXTENSION = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"

# What is set → origins as browsers send them that it lets in, and those that it does not.
NAMED = {
    "https://chat.example.org": (
        ["https://chat.example.org"],
        ["http://chat.example.org", "https://chat.example.org:8443", "https://chat.example.org.evil.example"],
    ),
    "HTTPS://Chat.Example.org:443": (["https://chat.example.org"], ["https://chat.example.org:443"]),
    "http://chat.example.org:8080": (["http://chat.example.org:8080"], ["http://chat.example.org"]),
    "https://*.example.com": (
        ["https://a.example.com", "https://pr-7.example.com"],
        [
            *("https://example.com", "https://a.b.example.com", "https://a.example.com:8443"),
            *("http://a.example.com", "https://aexample.com", "https://.example.com"),
            *("https://evil.example/.example.com", "https://a.examplexcom", "https://évil.example.com"),
        ],
    ),
    "http://*.localhost:3000": (["http://app.localhost:3000"], ["http://localhost:3000"]),
    "http://localhost:*": (
        ["http://localhost", "http://localhost:3000", "http://localhost:65535"],
        ["https://localhost:3000", "http://localhost:evil.example", "http://localhost.evil.example:3000"],
    ),
    "http://[0:0:0:0:0:0:0:1]:3000": (["http://[::1]:3000"], []),
    "https://xn--bcher-kva.example": (["https://xn--bcher-kva.example"], ["https://bücher.example"]),
    "capacitor://localhost": (["capacitor://localhost"], ["capacitor://evil", "https://localhost"]),
    "ionic://localhost": (["ionic://localhost"], []),
    "tauri://localhost": (["tauri://localhost"], ["http://tauri.localhost"]),
    "app://.": (["app://."], ["app://x"]),
    "app://obsidian.md": (["app://obsidian.md"], ["app://obsidianxmd"]),
    EXTENSION: ([EXTENSION], ["chrome-extension://bcdefghijklmnopabcdefghijklmnopa"]),
    "moz-extension://*": (["moz-extension://0b5f0d8e-6a5c-4f8e-9d5d-1f2a3b4c5d6e"], [EXTENSION, "null"]),
    "vscode-webview://*": (["vscode-webview://1bkdqlq9a1v8lcj5"], ["vscode-webview://a.b"]),
}

REFUSED = {
    "https://chat.example.org/": "no path, no slash",
    "https://chat.example.org/chat": "no path, no slash",
    "https://chat.example.org?a": "no path, no slash",
    "https://me@chat.example.org": "no user name",
    "https:// chat.example.org": "no path",
    "chat.example.org": "begins with its scheme",
    "localhost:3000": "begins with its scheme",
    "*.com": "begins with its scheme",
    "*.example.com": "begins with its scheme",
    "htps://chat.example.org": "the scheme must be one of",
    "file://": "the scheme must be one of",
    "*://chat.example.org": "the scheme must be one of",
    "null": "sandboxed pages",
    "https://": "host name",
    "https://:443": "host name",
    "https://a..b": "host name",
    "https://chat.example.org.": "host name",
    "https://a*.example.com": "host name",
    "https://chat.example.org:": "host name",
    "https://chat.example.org:https": "host name",
    "https://[::1": "host name",
    "https://chat.example.org:0": "from 1 to 65535",
    "https://chat.example.org:65536": "from 1 to 65535",
    "https://*.*.example.com": "only one \\*",
    "https://*.example.com:*": "only one \\*",
    "https://chat.*.com": "first label",
    "https://*": "no host",
    "https://*.com": "top-level domain",
    "https://bücher.example": "punycode",
    "https://[::1::2]:3000": "host name",
}


@pytest.mark.parametrize("text", NAMED)
def test_an_entry_lets_in_the_origins_that_it_names_and_no_other(text: str) -> None:
    named, others = NAMED[text]
    pattern, origins = re.compile(origin_regex(text)), Origins([text])
    for origin in [*named, *others]:
        assert bool(pattern.fullmatch(origin)) == (origin in named), origin
    for origin in named:
        origins.check([(b"origin", origin.encode()), (b"sec-fetch-site", b"cross-site")])


@pytest.mark.parametrize("text", REFUSED)
def test_what_no_browser_could_send_is_a_fault_with_its_reason(text: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[text]):
        origin_regex(text)
    with pytest.raises(SettingsError) as caught:
        load_settings({"ALLOWED_ORIGIN": f"https://fine.example,{text}"}, env_file=None)
    [fault] = caught.value.faults
    assert fault.startswith("ALLOWED_ORIGIN must be * or origins with commas between; number 2: ")


def test_a_start_with_a_slash_too_many_ends_with_the_reason() -> None:
    said = refused_start({"ALLOWED_ORIGIN": "https://chat.example.org/"})
    assert "ALLOWED_ORIGIN must be * or origins with commas between; number 1: an origin ends with" in said


def test_any_page_and_patterns_may_stand_side_by_side() -> None:
    settings = load_settings({"ALLOWED_ORIGIN": "*, http://localhost:*"}, env_file=None)
    assert settings.allowed_origin == ("*", "http://localhost:*")


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    allowed = ",".join(NAMED)
    env = {**QUICK, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1", "ALLOWED_ORIGIN": allowed}
    with serve(env) as running:
        yield running


@pytest.mark.parametrize(
    "origin",
    [
        *("https://pr-7.example.com", "http://localhost:5173", "capacitor://localhost", EXTENSION),
        "moz-extension://0b5f0d8e-6a5c-4f8e-9d5d-1f2a3b4c5d6e",
    ],
)
def test_a_named_page_passes_the_preflight_spends_and_reads(
    service: RunningService, upstream: ScriptedUpstream, origin: str
) -> None:
    page = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    preflight = plain_http.options(
        f"{service.url}/ask",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        },
    )
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, origin)
    answer = ask(service.url, headers=page)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    assert upstream.paid_calls == 1


@pytest.mark.parametrize("origin", ["https://a.b.example.com", "http://localhost.evil.example", "null", ""])
def test_any_other_page_fails_at_each_of_the_three(
    service: RunningService, upstream: ScriptedUpstream, origin: str
) -> None:
    wanted = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = plain_http.options(f"{service.url}/ask", headers=wanted)
    assert (preflight.status_code, preflight.json()["error"]) == (403, "forbidden_origin")
    page = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    answer = plain_http.post(f"{service.url}/ask", json=HELLO, headers=page)
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden_origin")
    for response in (preflight, answer):
        assert "access-control-allow-origin" not in response.headers
    assert upstream.calls == []
