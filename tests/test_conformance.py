"""The conformance suite: our own service keeps every promise, and a wrong server is found out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx2
import msgspec
import pytest

from tests.conformance.promises import PROMISES, Server, findings
from tests.support import plain_http
from tests.support.service import RunningService
from tests.support.upstream import ScriptedUpstream
from tests.support.web import Handler, web_server


def test_our_own_service_keeps_every_promise(service: RunningService, upstream_port: int) -> None:
    command = ["-m", "tests.conformance", "--url", service.url, "--upstream-port", str(upstream_port)]
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=50, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("kept  ") == len(PROMISES)


@pytest.fixture
def naive(upstream: ScriptedUpstream) -> Iterator[Server]:
    """What everyone writes by hand: it asks for each request, passes the text on, and always says done."""

    class Naive(Handler):
        def do_POST(self) -> None:
            body = msgspec.json.decode(self.rfile.read(int(self.headers["content-length"])))
            text = ""
            try:
                with plain_http.stream(
                    "POST",
                    f"{upstream.base_url}/chat/completions",
                    json={"model": "m", "stream": True, **body},
                    timeout=10,
                ) as answer:
                    for line in answer.iter_lines():
                        if line.startswith('data: {"id"') and (
                            found := msgspec.json.decode(line[6:])["choices"]
                        ):
                            text += found[0]["delta"].get("content") or ""
            except (httpx2.HTTPError, TypeError):
                pass
            events = [
                {"type": "start", "id": "a", "model": "m"},
                {"type": "delta", "content": text},
                {"type": "done", "finish_reason": "stop"},
            ]
            stream = b"".join(
                b"data: %s\nid: a.%d\n\n" % (msgspec.json.encode(event), number)
                for number, event in enumerate(events)
            )
            self.reply(200, stream, **{"Content-Type": "text/event-stream", "Content-Location": "/ask/a"})

        def do_GET(self) -> None:
            self.reply(200, b"", **{"Content-Type": "text/event-stream"})

        def do_DELETE(self) -> None:
            self.reply(200, b"")

    with web_server(Naive) as port:
        yield Server(f"http://127.0.0.1:{port}", upstream)


def test_a_server_that_breaks_promises_is_found_out(naive: Server) -> None:
    kept = {one.promise for one in findings(naive) if not one.error}
    assert kept == {"a whole answer ends with one done"}
