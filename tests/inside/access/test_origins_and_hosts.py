"""Which pages, host names and paths the service answers to, by the request's own words."""

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from chat_sse.access.hosts import TrustedHost, is_loopback
from chat_sse.access.origin import Origins
from chat_sse.access.paths import RootPath, TrailingSlash, own_path, public_path
from chat_sse.errors import ForbiddenOrigin, Misdirected

OURS, FOREIGN = "https://app.example", "https://evil.example"
BROWSER = {"user-agent": "Mozilla/5.0"}


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def refusal(headers: dict[str, str], *allowed: str, asks_by_url: bool = False) -> str | None:
    """Return why a request is refused, if it is."""
    try:
        Origins(allowed).check(raw(headers), asks_by_url=asks_by_url)
    except ForbiddenOrigin as error:
        return error.details
    return None


# Pages.


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": OURS, "sec-fetch-site": "cross-site"},
        {"origin": OURS},
        {"sec-fetch-site": "same-origin", "origin": FOREIGN},
        {"sec-fetch-site": "none"},
        {"host": "here:8000", "origin": "http://here:8000"},
        {"host": "HERE", "referer": "http://here/page?x=1"},
        {"host": "here:443", "origin": "https://here"},
        {"host": "here:80", "referer": "http://here/"},
        {"user-agent": "curl/8", "host": "here"},
        {**BROWSER, "referer": OURS + "/page"},
    ],
)
def test_allowed_pages_own_pages_programs_and_the_address_bar_may_ask(headers: dict[str, str]) -> None:
    assert refusal(headers, OURS) is None
    assert refusal(headers, OURS, asks_by_url=True) is None


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"origin": FOREIGN, "sec-fetch-site": "cross-site"}, f"origin {FOREIGN} is not"),
        ({"origin": FOREIGN, "sec-fetch-site": "none"}, f"origin {FOREIGN} is not"),
        ({"sec-fetch-site": "cross-site"}, "image, link or form"),
        ({"sec-fetch-site": "same-site"}, "same-site"),
        ({"host": "here", "origin": FOREIGN}, "Host asked for, here;"),
        ({"host": "here", "referer": FOREIGN + "/page"}, FOREIGN),
        ({"host": "here:81", "origin": "http://here"}, "http://here"),
        ({"host": "here:443", "origin": "http://here"}, "http://here"),
        ({"origin": "null", "host": "here"}, "null"),
        ({"sec-purpose": "prefetch;prerender"}, "in advance"),
        ({"purpose": "prefetch"}, "in advance"),
    ],
)
def test_foreign_pages_and_guesses_may_not(headers: dict[str, str], words: str) -> None:
    assert words in (refusal(headers, OURS) or "")


def test_a_browser_that_names_no_page_may_not_spend_by_opening_a_url() -> None:
    assert refusal(BROWSER, OURS) is None
    Origins([OURS]).check(raw(BROWSER))
    assert "names its page" in (refusal(BROWSER, OURS, asks_by_url=True) or "")


def test_any_page_may_where_any_is_allowed_but_no_guess() -> None:
    assert refusal({"origin": FOREIGN, "sec-fetch-site": "cross-site"}, "*") is None
    assert refusal({"sec-purpose": "prefetch"}, "*") is not None
    assert Origins(["*"]).any
    assert not Origins([OURS]).any


# Hosts.


def accepts(
    host: str | None,
    *,
    bound_to: str = "0.0.0.0",
    allowed: tuple[str, ...] = (),
    authenticated: bool = False,
    server: tuple[str, int | None] | None = ("192.0.2.1", 8000),
    path: str = "/ask",
) -> bool:
    async def app(_: Scope, __: Receive, ___: Send) -> None:
        """Is not called here."""

    guard = TrustedHost(app, bound_to=bound_to, allowed=allowed, authenticated=authenticated)
    scope: dict[str, Any] = {"type": "http", "path": path, "server": server}
    scope["headers"] = [] if host is None else [(b"host", host.encode())]
    try:
        guard(scope, None, None).close()  # type: ignore[arg-type, attr-defined]
    except Misdirected as error:
        return f"asked for, {host}, is not" not in error.details
    return True


LOOPBACK = {"bound_to": "127.0.0.1", "server": ("127.0.0.1", 8000)}


@pytest.mark.parametrize(
    ("host", "options", "expected"),
    [
        (None, {}, True),
        ("localhost", {}, True),
        ("LOCALHOST:8000", {}, True),
        ("[::1]:8000", {}, True),
        ("192.0.2.1", {}, True),
        ("[2001:db8::1]:80", {}, True),
        ("evil.example", {}, False),
        ("evil.example", {"path": "/healthz"}, True),
        ("evil.example", {"authenticated": True}, True),
        ("evil.example", {"server": None}, True),
        ("evil.example", {"server": ("testserver", 80)}, True),
        ("evil.example", {"server": ("/run/x.sock", None)}, False),
        ("evil.example", {"server": ("/run/x.sock", None), "authenticated": True}, True),
        ("evil.example", {**LOOPBACK, "authenticated": True}, False),
        ("192.0.2.1", LOOPBACK, False),
        ("evil.example", {**LOOPBACK, "path": "/healthz"}, False),
        ("evil.example", {"bound_to": "127.0.0.1"}, False),
        ("192.0.2.1", {"bound_to": "127.0.0.1"}, True),  # another server listens elsewhere
        ("chat.example", {"allowed": ("Chat.example",)}, True),
        ("evil.example", {"allowed": ("chat.example",), "authenticated": True}, False),
        ("192.0.2.1", {"allowed": ("chat.example",)}, False),
        ("192.0.2.1", {"allowed": ("chat.example",), "path": "/readyz"}, True),
        ("evil.example", {"allowed": ("chat.example",), "path": "/readyz"}, False),
        ("evil.example", {"allowed": ("*",)}, True),
        ("my.host", {"bound_to": "my.host"}, True),
        ("evil.example:x", {"allowed": ("evil.example",)}, False),
        ("evil.example:", {"allowed": ("evil.example",)}, True),
    ],
)
def test_a_rebound_name_is_not_answered(host: str | None, options: dict[str, Any], expected: bool) -> None:
    assert accepts(host, **options) == expected


def test_loopback_is_what_only_this_machine_can_reach() -> None:
    assert [is_loopback(host) for host in ("localhost", "::1", "127.9.9.9", "0.0.0.0", "10.0.0.1")] == [
        *(True, True, True),
        *(False, False),
    ]


# Paths.


async def routed(path: str, *, root_path: str = "", told: str | None = None) -> tuple[str, str, int]:
    """Return the path and the root that the application sees, and the status of an answer before it."""
    seen: list[tuple[str, str]] = []
    statuses: list[int] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append((scope["path"], scope.get("root_path", "")))

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    scope: Scope = {
        "type": "http",
        "path": path,
        "headers": [],
        **({} if told is None else {"root_path": told}),
    }
    inner = TrailingSlash(app)
    await (RootPath(inner, root_path=root_path) if root_path else inner)(scope, None, send)  # type: ignore[arg-type]
    assert scope["path"] == path
    return *(seen or [("", "")])[0], (statuses or [0])[0]


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("/ask/", {}, ("/ask", "", 0)),
        ("/ask", {}, ("/ask", "", 0)),
        ("/", {}, ("/", "", 0)),
        ("//", {}, ("//", "", 0)),
        ("/chat/", {"told": "/chat"}, ("/chat/", "/chat", 0)),
        ("/chat/ask/", {"told": "/chat"}, ("/chat/ask", "/chat", 0)),
        ("/ask/", {"root_path": "/chat"}, ("/chat/ask", "/chat", 0)),
        ("/chat/ask", {"root_path": "/chat"}, ("/chat/ask", "/chat", 0)),
        ("/chatty", {"root_path": "/chat"}, ("/chat/chatty", "/chat", 0)),
        ("/chat", {"root_path": "/chat"}, ("", "", 307)),
        ("/x", {"root_path": "/chat", "told": "/other"}, ("/x", "/other", 0)),
    ],
)
async def test_a_path_may_be_written_with_a_slash_and_with_or_without_its_root(
    path: str, options: dict[str, str], expected: tuple[str, str, int]
) -> None:
    assert await routed(path, **options) == expected


async def test_what_has_no_path_passes() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(scope)

    scope: Scope = {"type": "lifespan"}
    await RootPath(TrailingSlash(app), root_path="/chat")(scope, None, None)  # type: ignore[arg-type]
    assert seen == [scope]


def test_a_path_is_told_with_its_root_and_read_without() -> None:
    assert public_path({"root_path": "/a b/"}, "/ask") == "/a%20b/ask"
    assert public_path({}, "/ask") == "/ask"
    assert public_path({"root_path": "//host"}) == "/host"
    assert own_path({"root_path": "/chat", "path": "/chat/ask"}) == "/ask"
    assert own_path({"path": "/ask"}) == "/ask"
