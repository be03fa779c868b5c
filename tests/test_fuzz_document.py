"""What the OpenAPI document allows, and what it forbids, is sent to the service, which answers as it says.

The requests are schemathesis's, the same ones in every run, and all of its checks apply: no 500, no status,
media type, header or body that is not in the document, nothing valid refused, nothing invalid accepted.
"""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from starlette.routing import Route

from chat_sse.app import create_app
from chat_sse.openapi import PLACE, document
from chat_sse.settings import Settings
from tests.conftest import QUICK
from tests.service import RunningService, ask, events, serve, text_of
from tests.upstream import ScriptedUpstream

MAX_EXAMPLES = 30
SECRET = "fuzz-0123456789abcdef"


def described(*, with_keys: bool) -> dict[str, Any]:
    """Give the document; `with_keys`: what of it a key is for, as it holds where the service has keys."""
    app = create_app(Settings(openai_base_url="http://127.0.0.1:9/v1"))
    found = document(route for route in app.routes if isinstance(route, Route))
    if with_keys:
        found["paths"] = {path: item for path, item in found["paths"].items() if path.startswith("/ask")}
        for told in (told for item in found["paths"].values() for told in item.values()):
            told["security"].remove({})
    return found


def schema_of(found: dict[str, Any]) -> schemathesis.BaseSchema:
    generation = GenerationConfig(deterministic=True, max_examples=MAX_EXAMPLES)
    # A valid request may be about an answer that is not there, or bring a key that is in use (422).
    acceptance = PositiveDataAcceptanceConfig(expected_statuses=["2xx", 404, 422])
    project = ProjectConfig(
        generation=generation,
        request_timeout=10,
        checks=ChecksConfig(positive_data_acceptance=acceptance),
    )
    config = SchemathesisConfig(projects=ProjectsConfig(default=project))
    return schemathesis.openapi.from_dict(found, config=config)


OPEN = schema_of(described(with_keys=False))
LOCKED = schema_of(described(with_keys=True))


@pytest.fixture(scope="module")
def env(upstream_port: int) -> Iterator[dict[str, str]]:
    """One upstream for all of the module, which answers every question at once."""
    with ScriptedUpstream(port=upstream_port) as upstream:
        yield {**QUICK, "OPENAI_BASE_URL": upstream.base_url}


@pytest.fixture(scope="module")
def service(env: dict[str, str]) -> Iterator[RunningService]:
    with serve(env) as running:
        yield running
        check_unharmed(running, {})


@pytest.fixture(scope="module")
def locked_service(env: dict[str, str]) -> Iterator[RunningService]:
    with serve({**env, "CHAT_SSE_API_KEYS": f"fuzz:{SECRET}"}) as running:
        yield running
        check_unharmed(running, {"Authorization": f"Bearer {SECRET}"})


def check_unharmed(service: RunningService, headers: dict[str, str]) -> None:
    assert text_of(events(ask(service.url, headers=headers))) == "Hello there!"
    assert not re.findall(r".*(?:Traceback|ERROR|status=5).*", service.log())


def excluded_for(case: schemathesis.Case) -> list[Any]:
    """Leave out the check that what is valid is accepted, where it is not valid after all."""
    query, place = case.query or {}, (case.headers or {}).get("Last-Event-ID", "")
    asks_nothing = (case.method, case.path) == ("GET", "/ask") and not {"q", "messages"} & set(query)
    # What OpenAPI cannot say (one parameter or the other), and what schemathesis at times does not obey (a
    # header's pattern).
    if asks_nothing or not re.fullmatch(PLACE, place):
        return CHECKS.get_by_names(["positive_data_acceptance"])
    return []


def test_the_document_that_is_tried_is_the_one_that_is_served(service: RunningService) -> None:
    assert httpx2.get(f"{service.url}/openapi.json").json() == described(with_keys=False)


@OPEN.parametrize()
def test_each_operation_does_what_the_document_says(case: schemathesis.Case, service: RunningService) -> None:
    case.call_and_validate(base_url=service.url, excluded_checks=excluded_for(case))


@LOCKED.parametrize()
def test_each_operation_does_what_the_document_says_for_the_holder_of_a_key(
    case: schemathesis.Case, locked_service: RunningService
) -> None:
    headers = {"Authorization": f"Bearer {SECRET}"}
    case.call_and_validate(base_url=locked_service.url, headers=headers, excluded_checks=excluded_for(case))
