"""`chat-sse check` and `chat-sse --print-config`: what is set, and whether it would work.

Nothing is paid and nothing is started: Redis is asked for its mode, each upstream for its list of models.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Set

import click

from chat_sse.access.opening import open_ways
from chat_sse.opening import check_settings
from chat_sse.server.own_redis import RedisMissing, find_program
from chat_sse.settings import Settings, SettingsError, load_settings, shown
from chat_sse.upstreams.local import find_local_model
from chat_sse.upstreams.local_file import LocalModelUnavailable, installed_model, model_name
from chat_sse.upstreams.opening import probe_upstreams

WRONG, OUT_OF_REACH = 2, 3


def print_config(overridden: Set[str]) -> int:
    """Print every variable, its value without secrets, and where it was set. Returns the exit code.

    `overridden`: the variables that the command line has put into the environment.
    """
    for name, value, source in shown(os.environ, overridden):
        click.echo(f"{f'{name}={value}':<60} # {source}")
    _, faults = _settings()
    for fault in faults:
        click.echo(f"chat-sse: {fault}", err=True)
    return WRONG if faults else 0


def check() -> int:
    """Print what would keep the service from answering. Returns the exit code: 0, WRONG or OUT_OF_REACH."""
    settings, faults = _settings()
    for fault in faults:
        click.echo(f"wrong  {fault}")
    if settings is None or faults:
        return WRONG
    click.echo("ok     the settings")
    return asyncio.run(_reach(settings))


def _settings() -> tuple[Settings | None, list[str]]:
    """Return the settings and all that is wrong with them, as far as this machine can tell."""
    try:
        settings = load_settings(os.environ)
    except SettingsError as exc:
        return None, exc.faults
    faults: list[str] = []
    for examine in (check_settings, open_ways, _check_local_model, _check_program):
        try:
            examine(settings)
        except SettingsError as exc:
            faults += exc.faults
        except (LocalModelUnavailable, RedisMissing) as exc:
            faults.append(str(exc))
    return settings, faults


def _check_local_model(settings: Settings) -> None:
    if settings.needs_local_model and _is_here(settings):
        find_local_model(settings.local_model)


def _is_here(settings: Settings) -> bool:
    """Return whether the embedded model's file need not be fetched."""
    return settings.local_model is not None or installed_model() is not None


def _check_program(settings: Settings) -> None:
    if settings.workers > 1 and settings.redis_url is None:
        find_program()


async def _reach(settings: Settings) -> int:
    code = 0
    async for place, fault, note in _places(settings):
        if fault is not None:
            code = OUT_OF_REACH
        click.echo(
            f"{'wrong' if fault else 'note ' if note else 'ok   '}  {place}: {fault or note or 'usable'}"
        )
    return code


async def _places(settings: Settings) -> AsyncIterator[tuple[str, str | None, str | None]]:
    """Yield what is called by which name, what is wrong with it, and what may be."""
    if settings.redis_url is not None:
        from chat_sse.redis_access import find_fault  # noqa: PLC0415  (part of an extra)

        yield "Redis", await find_fault(settings.redis_url), None
    if settings.needs_local_model and _is_here(settings):
        yield f"the embedded model {model_name(find_local_model(settings.local_model))}", None, None
    elif settings.needs_local_model:
        yield "the embedded model", None, "its file is fetched at the first start, unless it was before"
    async for name, probe in probe_upstreams(settings):
        yield name, probe.fault, probe.note
