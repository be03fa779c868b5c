"""From the settings to the upstream that they describe. Begin here to see which one answers.

It is the part of the composition root that is about upstreams; only `app.py` calls it.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import msgspec

from chat_sse.settings import Settings
from chat_sse.target import Target
from chat_sse.upstreams.base import Upstream
from chat_sse.upstreams.fallback import Candidate, FallbackUpstream
from chat_sse.upstreams.local import start_local_model
from chat_sse.upstreams.openai.probe import Probe
from chat_sse.upstreams.openai.upstream import OpenAIUpstream

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer  # part of an extra

DEFAULT_MODEL = "gpt-4o-mini"


async def open_upstream(settings: Settings, stack: AsyncExitStack) -> Upstream:
    """Open the models file's servers, or the OpenAI API, a server that speaks it, or the embedded model."""
    if settings.models_file:
        opened = {target.name: _open_target(settings, target, stack) for target in settings.models_file}
        one = {
            t.name: Candidate(name=t.name, model=t.model, upstream=opened[t.name])
            for t in settings.models_file
        }
        return FallbackUpstream(
            {t.name: [one[t.name], *(one[name] for name in t.fallbacks)] for t in settings.models_file}
        )
    offered: tuple[str, ...] = ()
    place = _only_target(settings)
    if settings.needs_local_model:
        local = stack.enter_context(await asyncio.to_thread(start_local_model, settings.local_model))
        offered = (local.model,)
        headers = {**place.headers, **local.request_headers}
        place = msgspec.structs.replace(
            place, base_url=local.base_url, api_key=local.api_key, headers=headers
        )
    upstream = _open_target(settings, place, stack, offered)
    if not settings.fallback_models:
        return upstream
    names = allowed_models(settings, offered)
    several = dict.fromkeys((*names, *settings.fallback_models))
    one = {name: Candidate(name=name, model=name, upstream=upstream) for name in several}
    return FallbackUpstream(
        {name: [one[each] for each in dict.fromkeys((name, *settings.fallback_models))] for name in names}
    )


def trace_upstream(upstream: Upstream, tracer: "Tracer") -> Upstream:
    """Return an upstream whose calls are traced."""
    from chat_sse.upstreams.traced import TracedUpstream  # noqa: PLC0415  (part of an extra)

    return TracedUpstream(upstream, tracer)


async def probe_upstreams(settings: Settings) -> AsyncIterator[tuple[str, Probe]]:
    """Yield where each server is, and what was found there, at no cost; nothing for the embedded model."""
    if settings.needs_local_model:
        return
    asked: list[tuple[Target, tuple[str, ...]]] = [(each, (each.model,)) for each in settings.models_file]
    if not asked:
        asked = [(_only_target(settings), (*allowed_models(settings, ()), *settings.fallback_models))]
    for target, models in asked:
        async with AsyncExitStack() as stack:
            upstream = _open_target(settings, target, stack)
            yield upstream.name, await upstream.probe(models)


def _only_target(settings: Settings) -> Target:
    """Return what is asked where there is no models file."""
    return Target(
        name="",
        model="",
        base_url=settings.openai_base_url,
        api_key=settings.openai_api_key,
        headers=settings.request_headers,
        body=settings.request_body,
    )


def _open_target(
    settings: Settings, target: Target, stack: AsyncExitStack, models: tuple[str, ...] = ()
) -> OpenAIUpstream:
    key = (settings.secret_key or secrets.token_urlsafe(32)).encode() if settings.safety_identifier else None
    # The account's names go where its key goes.
    own = target.base_url in (None, settings.openai_base_url)
    upstream = OpenAIUpstream(
        api_key=target.api_key or "none",  # servers without keys ignore it; the SDK wants one
        base_url=target.base_url,
        organization=settings.openai_org_id if own else None,
        project=settings.openai_project_id if own else None,
        system_prompt=settings.system_prompt,
        connect_seconds=settings.connect_timeout,
        models=models,
        headers=target.headers,
        body=target.body,
        identifier_key=key,
    )
    stack.push_async_callback(upstream.aclose)
    return upstream


def allowed_models(settings: Settings, offered: tuple[str, ...]) -> tuple[str, ...]:
    """Return the allow-list, the default model first. `offered`: what the upstream names by itself."""
    listed = settings.models or tuple(target.name for target in settings.models_file)
    default = settings.openai_model or (*listed, *offered, DEFAULT_MODEL)[0]
    return tuple(dict.fromkeys((default, *listed)))
