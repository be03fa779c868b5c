"""What is served at `/` and under `/page/`."""

import hashlib
import re

import pytest

from chat_sse.web.chat import CONTENT_SECURITY_POLICY, FOLDER
from tests.support import plain_http
from tests.support.service import RunningService


def test_the_page_is_served_under_a_strict_policy(service: RunningService) -> None:
    response = plain_http.get(f"{service.url}/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/ask.js", "text/javascript; charset=utf-8"),
        ("/ask.d.ts", "text/plain; charset=utf-8"),
        ("/ask-requests.js", "text/javascript; charset=utf-8"),
        ("/ask-requests.d.ts", "text/plain; charset=utf-8"),
        ("/ask-stream.js", "text/javascript; charset=utf-8"),
        ("/ask-stream.d.ts", "text/plain; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/vendor/purify.es.mjs", "text/javascript; charset=utf-8"),
        ("/page/vendor/LICENSE-marked.txt", "text/plain; charset=utf-8"),
        ("/page/chat.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
def test_each_part_is_served_with_its_type_and_asked_about_by_its_etag(
    service: RunningService, path: str, media_type: str
) -> None:
    url = f"{service.url}{path}"
    first = plain_http.get(url)
    assert (first.status_code, first.headers["content-type"]) == (200, media_type)
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = plain_http.get(url, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert plain_http.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_nothing_else_of_the_package_is_served(service: RunningService) -> None:
    for path in ("/page/", "/page/__init__.py", "/page/../app.py", "/page/vendor/README.md"):
        assert plain_http.get(f"{service.url}{path}").status_code == 404


def test_vendored_modules_are_the_ones_that_were_reviewed() -> None:
    notes = (FOLDER / "vendor" / "README.md").read_text()
    listed = dict(re.findall(r"^\| `([\w.]+)` \|.*`([0-9a-f]{64})` \|$", notes, re.MULTILINE))
    found = {path.name: path for path in (FOLDER / "vendor").iterdir() if path.suffix in (".js", ".mjs")}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()} == listed
