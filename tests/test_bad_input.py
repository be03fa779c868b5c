"""Bad input gets a clear error in the one body, and costs no upstream call."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask
from tests.support.upstream import ScriptedUpstream

BODY_FIELDS = {"role", "content", "error", "details", "request_id", "retryable"}


def said(**message: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"} | message]}


def check(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["error"]) == (status, code)
    assert set(body) == BODY_FIELDS
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == body["request_id"]
    return body


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ([], "Expected `object`"),
        ({}, "messages"),
        ({"messages": []}, "$.messages"),
        ({"messages": "Hi"}, "$.messages"),
        (said(role="system"), "$.messages[0].role"),
        (said(role="tool"), "$.messages[0].role"),
        (said(content=""), "$.messages[0].content"),
        (said(content="  \n"), "$.messages[0].content"),
        (said(content=5), "$.messages[0].content"),
        (said(content=None), "$.messages[0].content"),
        (said(content=[]), "$.messages[0].content"),
        (said(content=[{"type": "audio"}]), "$.messages[0].content[0].type"),
        (said(content=[{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]), "image_url.url"),
        (HELLO | {"model": "gpt-9"}, "$.model"),
        (HELLO | {"temperature": 9}, "$.temperature"),
        (HELLO | {"max_output_tokens": 0}, "$.max_output_tokens"),
        ({"messages": HELLO["messages"] * 201}, "$.messages"),
    ],
)
def test_what_does_not_fit_is_400_with_the_path_of_the_field(
    service: RunningService, upstream: ScriptedUpstream, body: Any, where: str
) -> None:
    assert where in check(ask(service.url, body), 400, "invalid_request")["details"]
    assert upstream.calls == []


@pytest.mark.parametrize("content", [b"", b"{", b"hello", b'{"messages":[{"role":"user","content":"\xff"}]}'])
def test_what_is_no_json_or_no_utf8_is_400(
    service: RunningService, upstream: ScriptedUpstream, content: bytes
) -> None:
    response = plain_http.post(
        f"{service.url}/ask", content=content, headers={"Content-Type": "application/json"}
    )
    check(response, 400, "invalid_request")
    assert upstream.calls == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_another_media_type_is_415(service: RunningService, upstream: ScriptedUpstream, kind: str) -> None:
    content = json.dumps(HELLO).encode()
    check(
        plain_http.post(f"{service.url}/ask", content=content, headers={"Content-Type": kind}),
        415,
        "unsupported_media_type",
    )
    assert upstream.calls == []


def test_a_media_type_with_a_charset_is_json_all_the_same(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    response = plain_http.post(f"{service.url}/ask", content=json.dumps(HELLO).encode(), headers=headers)
    assert response.status_code == 200


def test_a_body_too_large_is_413_also_when_its_length_is_not_told(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    check(ask(service.url, said(content="x" * 1_100_000)), 413, "payload_too_large")
    parts = (b"x" * 65_536 for _ in range(20))
    headers = {"Content-Type": "application/json"}
    check(plain_http.post(f"{service.url}/ask", content=parts, headers=headers), 413, "payload_too_large")
    assert upstream.calls == []


def test_an_oversize_length_is_refused_before_the_body_is_sent(service: RunningService) -> None:
    address = urlsplit(service.url)
    head = (
        b"POST /ask HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(head)
        answer = b""
        while b"payload_too_large" not in answer:
            piece = connection.recv(65_536)
            assert piece, answer
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/ask/unknown", 404, "stream_not_found"),
        ("DELETE", "/ask/unknown", 404, "stream_not_found"),
        ("PUT", "/ask", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("GET", "/ask", 400, "invalid_request"),
    ],
)
def test_wrong_paths_and_methods_are_told_in_the_same_body(
    service: RunningService, upstream: ScriptedUpstream, method: str, path: str, status: int, code: str
) -> None:
    check(plain_http.request(method, service.url + path), status, code)
    assert upstream.calls == []


def test_an_accept_that_nothing_fits_is_406(service: RunningService, upstream: ScriptedUpstream) -> None:
    check(ask(service.url, headers={"Accept": "image/png"}), 406, "not_acceptable")
    assert upstream.calls == []


def test_a_sane_request_id_is_kept_and_any_other_replaced(service: RunningService) -> None:
    kept = plain_http.get(f"{service.url}/healthz", headers={"X-Request-Id": "abc-1.2"})
    assert kept.headers["x-request-id"] == "abc-1.2"
    replaced = plain_http.get(f"{service.url}/healthz", headers={"X-Request-Id": "a b"})
    assert replaced.headers["x-request-id"] != "a b"
