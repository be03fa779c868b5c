"""Finds out whether a server would answer, by its list of models, which costs nothing."""

import asyncio
import ssl
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

import aiohttp
import httpx2
import msgspec
import openai

PATH = "/models"
SECONDS = 10.0
# Room for the lists of gateways, which name hundreds of models.
MAX_LIST_BYTES = 8 * 1_048_576
MAX_NAMED = 5

_KEY_REFUSED = (401, 403)
_NO_SUCH_LIST = (404, 405, 501)


class Probe(msgspec.Struct, frozen=True):
    """What was found, in words for the operator."""

    fault: str | None = None
    note: str | None = None
    """What may be wrong, and may not."""


class _Model(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    data: list[_Model]


async def probe(
    client: openai.AsyncOpenAI, query: str, headers: Mapping[str, str], models: Collection[str]
) -> Probe:
    """Ask for the list, and look for these models in it. `query`: of the URL."""
    path = f"{PATH}?{query}" if query else PATH
    try:
        async with asyncio.timeout(SECONDS):
            listed = {model.id for model in await _listed(client, path, headers)}
    except openai.APIStatusError as exc:
        return _refusal(exc.status_code)
    except openai.OpenAIError as exc:
        return Probe(fault=_why_unreachable(exc))
    except (TimeoutError, httpx2.TransportError, aiohttp.ClientError, OSError):
        return Probe(fault="does not answer in time, or breaks off")
    except msgspec.DecodeError:
        return Probe(note="answers, with something that is no list of models")
    known = listed | {name.rpartition("/")[2] for name in listed}  # Gemini's are `models/…`
    missing = sorted(set(models) - known)
    if listed and missing:
        there = ", ".join(sorted(listed)[:MAX_NAMED])
        return Probe(note=f"answers, and does not list {', '.join(missing)} among its models ({there}, …)")
    return Probe()


async def _listed(client: openai.AsyncOpenAI, path: str, headers: Mapping[str, str]) -> list[_Model]:
    response = await client.with_options(max_retries=0).get(
        path,
        cast_to=httpx2.Response,
        options={"headers": {**headers, "Accept": "application/json"}},
        stream=True,
        stream_cls=openai.AsyncStream[Any],
    )
    content = bytearray()
    try:
        async for data in cast("httpx2.Response", response).aiter_raw():
            content += data
            if len(content) > MAX_LIST_BYTES:
                break
    finally:
        await cast("httpx2.Response", response).aclose()
    return msgspec.json.decode(content, type=_List).data


def _refusal(status: int) -> Probe:
    if status in _KEY_REFUSED:
        return Probe(fault=f"refuses the API key ({status})")
    if status in _NO_SUCH_LIST:
        return Probe(note=f"answers, and has no list of models ({status}): the key was not checked")
    return Probe(fault=f"answers its list of models with {status}")


def _why_unreachable(exc: BaseException) -> str:
    for cause in _causes(exc):
        broken = getattr(cause, "certificate_error", cause)
        if isinstance(broken, ssl.SSLCertVerificationError):
            return f"has a certificate that is not trusted here: {broken.verify_message}"
        if isinstance(broken, ssl.SSLError):
            return "does not speak TLS as it should"
    return "cannot be reached"


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
