"""Upstreams whose names resolve slowly or never: nobody else waits for them, and neither does the end."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import QUICK
from tests.support.names import NameServer, can_resolve, resolving
from tests.support.service import HELLO, RunningService, ask, events, serve, text_of, until
from tests.support.upstream import Finish, Say, ScriptedUpstream

HANGING = 12
NAMES = {"known.test": 0.0, "slow.test": 0.3, "hangs.test": None}
HOSTS = {name.removesuffix(".test"): name for name in (*NAMES, "unknown.test")} | {"unwritable": "no..name"}


@pytest.fixture
def site(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[tuple[RunningService, NameServer]]:
    upstream.answer(Say("Hello"), Finish())
    models = tmp_path / "models.toml"
    urls = {model: f"http://{host}:{upstream.port}/v1" for model, host in HOSTS.items()}
    models.write_text("".join(f'[{model}]\nbase_url = "{url}"\n' for model, url in urls.items()))
    env = {**QUICK, "CHAT_SSE_MODELS_FILE": str(models), "CHAT_SSE_CONNECT_TIMEOUT": "1"}
    with resolving(NAMES, tmp_path) as (server, before), serve(env, before=before) as service:
        yield service, server


@pytest.mark.skipif(not can_resolve(), reason="it takes root, and the right to mount")
def test_a_name_that_hangs_holds_up_neither_other_questions_nor_the_end(
    site: tuple[RunningService, NameServer],
) -> None:
    service, names = site
    with ThreadPoolExecutor(HANGING) as pool:
        hanging = [pool.submit(ask, service.url, {**HELLO, "model": "hangs"}) for _ in range(HANGING)]
        until(lambda: "hangs.test" in names.asked)
        for model in ("known", "slow"):
            assert text_of(events(ask(service.url, {**HELLO, "model": model}))) == "Hello"
        for model in ("unknown", "unwritable"):
            refused = ask(service.url, {**HELLO, "model": model})
            assert refused.json()["error"] == "service_unavailable_error"
        assert service.terminate() == 0
        for one in hanging:
            [start, end] = events(one.result())
            assert (start["type"], end["error"]) in (("start", "server_draining"), ("start", "timeout_error"))
