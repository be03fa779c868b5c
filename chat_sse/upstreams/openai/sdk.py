"""The SDK's HTTP client with a bound on what a refusal costs, and the SDK as a writer of requests.

The SDK's client is what a question takes that must go through a proxy or follow a redirect.
"""

import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import aiohttp
import httpx2
import openai

from chat_sse.upstreams.openai.refusal import MAX_REFUSAL_BYTES, MAX_RETRY_WAIT_SECONDS, retry_after

LOST = "the connection was lost after the request had been sent"

# Where a refusal's Content-Encoding went: under its own name httpx would undo it, without a bound.
WAS_ENCODED = "x-was-encoded"

_FIRST_ERROR = 400


@lru_cache(1)
def tls_context() -> ssl.SSLContext:
    """Return the one context of all clients: reading the authorities' certificates takes 45 ms."""
    return httpx2.create_ssl_context()


class NoDoublePayClient(openai.DefaultAioHttpClient):
    """The SDK's HTTP client, with retries only where upstream cannot have begun to answer.

    The SDK retries after every transport error, which is right while there is no connection. One that strikes
    after the request has left (a reset, a connection closed unanswered) may hide a call that is being paid
    for, so it is raised as an OpenAIError, which the SDK hands on as it is.
    """

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            response = await super().send(request, **options)
        except (httpx2.TransportError, aiohttp.ClientError, OSError) as exc:
            if isinstance(exc.__cause__, aiohttp.ConnectionTimeoutError):
                raise
            if isinstance(exc.__cause__, aiohttp.ClientConnectorError):
                # Mapped to a timeout by the SDK's transport, which a refused connection is not.
                raise httpx2.ConnectError("cannot connect", request=request) from exc
            raise openai.APIConnectionError(message=LOST, request=request) from exc
        except UnicodeError as exc:  # aiohttp hands on a reason phrase that the SDK's transport cannot encode
            raise openai.APIConnectionError(message=LOST, request=request) from exc
        return await _bounded(response) if response.status_code >= _FIRST_ERROR else response


async def _bounded(response: httpx2.Response) -> httpx2.Response:
    """Return a refusal whose body is read as far as it may be, still compressed, and whose wait is sane."""
    content = bytearray()
    try:
        async for data in response.aiter_raw():
            content += data
            if len(content) >= MAX_REFUSAL_BYTES:
                break
    except (httpx2.TransportError, aiohttp.ClientError, OSError):
        pass  # a refusal that breaks off is one all the same
    finally:
        await response.aclose()
    wait = retry_after(response.headers)
    headers = [
        (name, value)
        for name, value in response.headers.raw
        if name.lower() not in (b"retry-after", b"retry-after-ms", b"content-encoding", b"content-length")
    ]
    if wait is not None:
        headers.append((b"retry-after", b"%f" % wait))
        if wait > MAX_RETRY_WAIT_SECONDS:
            headers.append((b"x-should-retry", b"false"))  # the SDK obeys this header of its own service
    if coding := response.headers.get("content-encoding"):
        headers.append((WAS_ENCODED.encode(), coding.encode("latin-1", "replace")))
    return httpx2.Response(
        response.status_code, headers=headers, content=bytes(content), request=response.request
    )


async def post(
    client: openai.AsyncOpenAI, endpoint: str, body: bytes, headers: Mapping[str, str]
) -> httpx2.Response:
    """Ask through the SDK. The response's body is not read yet. Raises openai.OpenAIError."""
    sent = await client.post(
        endpoint,
        cast_to=httpx2.Response,
        content=body,
        options={"headers": headers},
        stream=True,
        stream_cls=openai.AsyncStream[Any],
    )
    return cast("httpx2.Response", sent)  # `cast_to` decides it; the SDK's types do not say so


async def write_request(
    client: openai.AsyncOpenAI, endpoint: str, headers: Mapping[str, str]
) -> httpx2.Request:
    """Return the request that `post` would send. Nothing is sent."""
    written: list[httpx2.Request] = []

    def capture(request: httpx2.Request) -> httpx2.Response:
        written.append(request)
        return httpx2.Response(200)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(capture), trust_env=False) as nowhere:
        await post(client.copy(http_client=nowhere), endpoint, b"", headers)
    return written[0]
