"""The OpenAI API, and everything that speaks its chat completions: the one place that knows the SDK.

The SDK writes the requests (auth, headers, URL), retries them and words their errors. Two of its parts are
left out, for what they cost:

- its stream objects: some 150 µs of CPU a chunk (pydantic); they also tell no error from a clean end, and
  split on more than line ends. `chunks.py` reads the bytes instead.
- its way to the socket: some 0.5 ms a request. It writes one request, whose head then serves for all, over
  `http/pool.py`. Where that is not answered with 200, the SDK is given the outcome of its first attempt and
  goes on from there.
"""

import asyncio
import logging
import urllib.request
from collections.abc import Mapping
from typing import Any, cast
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
from chat_sse.messages import Message, Question
from chat_sse.upstreams.base import Listener
from chat_sse.upstreams.http.connection import EOF_SECONDS
from chat_sse.upstreams.openai.classify import classify, read_error
from chat_sse.upstreams.openai.client import CompletionClient
from chat_sse.upstreams.openai.redaction import error_details
from chat_sse.upstreams.openai.sdk import (
    LOST,
    NextAttempt,
    NoDoublePayClient,
    RequestCaptured,
    do_not_send,
    next_attempt,
    retry_after,
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
    ) -> None:
        """Prepare the client; nothing is sent. `max_connections` 0 means no limit; the SDK's is 1,000."""
        base_url = base_url or DEFAULT_BASE_URL
        host = urlsplit(base_url).hostname or ""
        self.name = public_url(base_url)
        # OpenAI's reasoning models refuse max_tokens; many compatible servers know nothing else.
        own = host.endswith((".openai.com", ".openai.azure.com"))
        self._cap_field = "max_completion_tokens" if own else "max_tokens"
        self.models = models
        self._api_key = api_key
        self._connect_seconds = connect_seconds
        self._asking: CompletionClient | None = None
        self._sdk_only = False
        self._system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        # Only connecting is timed here; silence is the relay's: one timer a stream, not one a read.
        timeout = httpx2.Timeout(None, connect=connect_seconds)
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            organization=organization,
            project=project,
            timeout=timeout,
            default_headers=headers,
            http_client=NoDoublePayClient(
                timeout=timeout,
                limits=httpx2.Limits(
                    max_connections=max_connections,
                    max_keepalive_connections=None,
                    keepalive_expiry=KEEPALIVE_SECONDS,
                ),
            ),
        )

    async def answer(self, question: Question, listener: Listener) -> None:
        """Ask, as `Upstream.answer` promises."""
        body = self._body(question)
        if self._asking is None and not self._sdk_only:
            await self._prepare()
        answered, attempt = False, None
        if self._asking is not None:
            answered, attempt = await self._asking.ask(body, listener)
        if not answered:
            try:
                await self._ask_sdk(body, listener, attempt)
            except openai.OpenAIError as exc:
                raise self._translate(exc, question) from exc

    async def aclose(self) -> None:
        """Close all connections."""
        if self._asking is not None:
            self._asking.close()
        await self._client.close()

    async def _prepare(self) -> None:
        """Have the SDK write a request, whose head serves for all, unless only its client knows the way."""
        try:
            await self._post(b"", do_not_send)
        except RequestCaptured as exc:
            written = exc.request
        if _is_proxied(written.url.scheme, written.url.host) or written.url.userinfo:
            self._sdk_only = True
        elif self._asking is None:  # another question may have been quicker
            self._asking = CompletionClient(
                written,
                connect_seconds=self._connect_seconds,
                idle_seconds=KEEPALIVE_SECONDS,
                secrets=(self._api_key,),
            )

    async def _ask_sdk(self, body: bytes, listener: Listener, attempt: NextAttempt | None) -> None:
        """Ask as the SDK does, from its second attempt on where the first one is given."""
        response = await self._post(body, attempt)
        try:
            stream = CompletionStream(listener, (self._api_key,))
            stream.accept(response.headers)
            await _relay_body(response, stream)
        finally:
            await response.aclose()

    async def _post(self, body: bytes, attempt: NextAttempt | None) -> httpx2.Response:
        next_attempt.set(attempt)
        sent = await self._client.post(
            "/chat/completions",
            cast_to=httpx2.Response,
            content=body,
            options={"headers": _HEADERS},
            stream=True,
            stream_cls=openai.AsyncStream[Any],
        )
        return cast("httpx2.Response", sent)  # `cast_to` decides it; the SDK's types do not say so

    def _messages(self, question: Question) -> list[Message | dict[str, str]]:
        return [*self._system, *question.messages]

    def _body(self, question: Question) -> bytes:
        body: dict[str, Any] = {
            "model": question.model,
            "messages": self._messages(question),
            "stream": True,
            "stream_options": {"include_usage": True},
            self._cap_field: question.max_output_tokens,
        }
        if question.temperature is not None:
            body["temperature"] = question.temperature
        return msgspec.json.encode(body)

    def _translate(self, exc: openai.OpenAIError, question: Question) -> UpstreamError:
        """Tell an SDK error in our own tree; this is the only place that knows both."""
        if isinstance(exc, openai.APIStatusError):
            return self._translate_status(exc, question)
        if isinstance(exc, openai.APITimeoutError):
            return UpstreamTimeout("upstream did not accept a connection in time")
        if isinstance(exc, openai.APIConnectionError):
            if exc.message == LOST:
                return UpstreamUnavailable("upstream closed the connection without an answer", may_cost=True)
            return UpstreamUnavailable("upstream cannot be reached")
        log.error("openai.unexpected_error", extra={"fields": {"type": type(exc).__name__}})
        return UpstreamUnavailable("the OpenAI client failed")

    def _translate_status(self, exc: openai.APIStatusError, question: Question) -> UpstreamError:
        told = read_error(_error_body(exc.response.content))
        details = error_details(
            exc.status_code,
            told,
            secrets=(self._api_key,),
            asked=msgspec.json.encode(self._messages(question)),
        )
        return classify(told, exc.status_code, details, retry_after(exc.response.headers))


def _error_body(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError):
        return None  # a page of HTML, or nothing: the status says it all


def public_url(base_url: str | None) -> str:
    """Give an upstream's URL without what might be secret in it: user, password, query."""
    parts = urlsplit(base_url or DEFAULT_BASE_URL)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _is_proxied(scheme: str, host: str) -> bool:
    """Tell whether the environment names a proxy for a host (HTTPS_PROXY, NO_PROXY, …)."""
    proxies = urllib.request.getproxies()
    return bool(proxies.get(scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(host)


async def _relay_body(response: httpx2.Response, stream: CompletionStream) -> None:
    """Hear a response of the SDK's client, to its end, so that its connection can be used again."""
    loop = asyncio.get_running_loop()
    lost = False
    try:
        async with asyncio.timeout(None) as deadline:

            def said(_: object) -> None:
                deadline.reschedule(loop.time() + EOF_SECONDS)

            stream.finished.add_done_callback(said)
            try:
                async for data in response.aiter_raw():
                    stream.data(data)
            finally:
                stream.finished.remove_done_callback(said)
    except (httpx2.TransportError, aiohttp.ClientError, OSError):  # TimeoutError is an OSError
        lost = True
    stream.end(lost=lost)
    await stream.finished
