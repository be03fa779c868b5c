"""The OpenAI API, and everything that speaks its chat completions: the one place that knows the SDK.

The SDK writes the requests: auth, headers, URL. It sends them only where its client is needed, for a proxy or
a redirect. Two of its parts are left out, for what they cost:

- its stream objects: some 150 µs of CPU a chunk (pydantic); they also tell no error from a clean end, and
  split on more than line ends. `chunks.py` reads the bytes instead.
- its way to the socket: some 0.5 ms a request. It writes one request, whose head then serves for all, over
  `http/pool.py`.
"""

import asyncio
import logging
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import msgspec
import openai

from chat_sse.errors import (
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat_sse.figures import Figure
from chat_sse.messages import Question
from chat_sse.target import ENDPOINT, split_base_url
from chat_sse.trace_context import TRACEPARENT
from chat_sse.upstreams.base import Listener
from chat_sse.upstreams.http.connection import EOF_SECONDS
from chat_sse.upstreams.openai.chunks import error_body
from chat_sse.upstreams.openai.classify import classify, read_error
from chat_sse.upstreams.openai.client import NO_CONNECTION, UNREACHABLE, Answered, CompletionClient, UseSdk
from chat_sse.upstreams.openai.probe import Probe, probe
from chat_sse.upstreams.openai.redaction import error_details
from chat_sse.upstreams.openai.refusal import RETRIES, Refused, retry_after
from chat_sse.upstreams.openai.request_body import RequestWriter, adapted
from chat_sse.upstreams.openai.sdk import (
    LOST,
    WAS_ENCODED,
    NoDoublePayClient,
    post,
    tls_context,
    write_request,
)
from chat_sse.upstreams.openai.stream import CompletionStream

log = logging.getLogger(__name__)

DEFAULT_BASE_URL = "https://api.openai.com/v1"

# uvicorn (vLLM, LiteLLM) closes an idle connection after 5 s. A question sent into that close is lost, and
# may not be sent twice; so connections are not reused after 4 s.
KEEPALIVE_SECONDS = 4.0
# Bytes are relayed as they come, so upstream must not compress them.
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",
}


class OpenAIUpstream:
    """An Upstream over an OpenAI-compatible HTTP API."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        system_prompt: str | None = None,
        connect_seconds: float = 5.0,
        max_connections: int = 0,
        models: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        identifier_key: bytes | None = None,
    ) -> None:
        """Prepare the client; nothing is sent. `max_connections` 0 means no limit; the SDK's is 1,000.

        `headers` and `body` are added to each request. `identifier_key`: for `safety_identifier`, which is
        sent to OpenAI's own hosts; None sends none.
        """
        base_url, query = split_base_url(base_url or DEFAULT_BASE_URL)
        self.name = public_url(base_url)
        self.models = models
        self._query = query
        self._endpoint = f"{ENDPOINT}?{query}" if query else ENDPOINT
        self._writer = RequestWriter(
            base_url, system_prompt=system_prompt, extra=body, identifier_key=identifier_key
        )
        self._secrets = (api_key, *(headers or {}).values(), query)
        self._connect_seconds = connect_seconds
        self._completions: CompletionClient | None = None
        self._sdk_only = False
        # Only connecting is timed here; silence is the relay's: one timer a stream, not one a read.
        timeout = httpx2.Timeout(None, connect=connect_seconds)
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            organization=organization,
            project=project,
            timeout=timeout,
            max_retries=RETRIES,
            http_client=NoDoublePayClient(
                verify=tls_context(),
                timeout=timeout,
                limits=httpx2.Limits(
                    max_connections=max_connections,
                    max_keepalive_connections=None,
                    keepalive_expiry=KEEPALIVE_SECONDS,
                ),
            ),
        )
        # Spelt as the SDK does, or it would send both: its own `Authorization` and an `authorization`.
        spelling = {name.lower(): name for name in self._client.default_headers}
        added = {spelling.get(name.lower(), name): value for name, value in (headers or {}).items()}
        self._headers = {**added, **_HEADERS}

    async def answer(self, question: Question, listener: Listener) -> None:
        """Ask, as `Upstream.answer` promises; after an unpaid refusal of a word, in other words."""
        model = question.model
        if self._completions is None and not self._sdk_only:
            await self._prepare()
        known = dialect = self._writer.dialect(model)
        tried = [known]
        while True:
            body = self._writer.body(question, dialect)
            outcome: Answered | Refused | UseSdk = UseSdk()
            if self._completions is not None:
                outcome = await self._completions.ask(body, listener)
            if isinstance(outcome, UseSdk):
                outcome = await self._ask_sdk(body, listener)
            if isinstance(outcome, Answered):
                return
            changed = adapted(dialect, outcome.status, outcome.text())
            if changed is None or changed in tried:
                self._writer.remember(model, known)  # the new words have not helped
                raise self._error(outcome, question)
            dialect = changed
            tried.append(dialect)
            self._writer.remember(model, dialect)
            log.info(
                "upstream.adapted", extra={"fields": {"model": model, **msgspec.structs.asdict(dialect)}}
            )

    def figures(self) -> Iterator[Figure]:
        """Return how often a call was made again, but for those that the SDK's client has made again."""
        yield Figure("upstream_retries", self._completions.retries if self._completions else 0)

    async def probe(self, models: Collection[str]) -> Probe:
        """Find out, at no cost, whether the server is there, takes the key, and has these models."""
        return await probe(self._client, self._query, self._headers, models)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._completions is not None:
            self._completions.close()
        await self._client.close()

    async def _prepare(self) -> None:
        """Let the SDK write a request, whose head serves for all, unless only its client can send it."""
        written = await write_request(self._client, self._endpoint, self._headers)
        if _is_proxied(written.url.scheme, written.url.host):
            self._sdk_only = True
        elif self._completions is None:  # another question may have been quicker
            self._completions = CompletionClient(
                written,
                connect_seconds=self._connect_seconds,
                idle_seconds=KEEPALIVE_SECONDS,
                secrets=self._secrets,
            )

    async def _ask_sdk(self, body: bytes, listener: Listener) -> Answered | Refused:
        try:
            traceparent = TRACEPARENT.get()
            headers = {**self._headers, "traceparent": traceparent} if traceparent else self._headers
            response = await post(self._client, self._endpoint, body, headers)
        except openai.APIStatusError as exc:
            return _refused(exc.response)
        except openai.OpenAIError as exc:
            raise _translated(exc) from exc
        try:
            stream = CompletionStream(listener, self._secrets)
            stream.accept(response.headers)
            await _relay_body(response, stream)
        finally:
            await response.aclose()
        return Answered()

    def _error(self, refused: Refused, question: Question) -> UpstreamError:
        """Return a refusal as an error of our own tree."""
        told = read_error(error_body(refused.text()))
        asked = msgspec.json.encode(self._writer.messages(question))
        details = error_details(refused.status, told, secrets=self._secrets, asked=asked)
        return classify(told, refused.status, details, retry_after(refused.headers))


def _refused(response: httpx2.Response) -> Refused:
    """Return a refusal of the SDK's client, whose body `NoDoublePayClient` has read."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    if coding := headers.pop(WAS_ENCODED, None):
        headers["content-encoding"] = coding
    return Refused(status=response.status_code, headers=headers, content=response.content)


def _translated(exc: openai.OpenAIError) -> UpstreamError:
    """Return an SDK error as one of our own tree; this is the only place that knows both."""
    if isinstance(exc, openai.APITimeoutError):
        return UpstreamTimeout(NO_CONNECTION)
    if isinstance(exc, openai.APIConnectionError):
        if exc.message == LOST:
            return UpstreamUnavailable("upstream closed the connection without an answer", may_cost=True)
        return UpstreamUnavailable(UNREACHABLE)
    log.error("openai.unexpected_error", extra={"fields": {"type": type(exc).__name__}})
    return UpstreamUnavailable("the OpenAI client failed")


def public_url(base_url: str | None) -> str:
    """Return an upstream's URL without what might be secret in it: user, password, query."""
    parts = urlsplit(base_url or DEFAULT_BASE_URL)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _is_proxied(scheme: str, host: str) -> bool:
    """Return whether the environment names a proxy for a host (HTTPS_PROXY, NO_PROXY, …)."""
    proxies = urllib.request.getproxies()
    return bool(proxies.get(scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(host)


async def _relay_body(response: httpx2.Response, stream: CompletionStream) -> None:
    """Read a response of the SDK's client to its end, so that its connection can be used again."""
    loop = asyncio.get_running_loop()
    lost, is_reading = False, True
    try:
        async with asyncio.timeout(None) as deadline:

            def bound_rest(_: object) -> None:
                if is_reading:  # a callback comes a turn of the loop later
                    deadline.reschedule(loop.time() + EOF_SECONDS)

            stream.finished.add_done_callback(bound_rest)
            try:
                async for data in response.aiter_raw():
                    stream.data(data)
            finally:
                is_reading = False
    except (httpx2.TransportError, aiohttp.ClientError, OSError):  # TimeoutError is an OSError
        lost = True
    stream.end(lost=lost)
    await stream.finished
