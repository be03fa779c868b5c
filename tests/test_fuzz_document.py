"""What the OpenAPI document allows, and what it forbids, is sent to the service, which answers as it says.

The requests are schemathesis's, the same ones in every run, and all of its checks apply: no 500, no status,
media type, header or body that is not in the document, nothing valid refused, nothing invalid accepted.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok
from starlette.routing import Route

from chat_sse.api.openapi.components import PLACE
from chat_sse.api.openapi.document import document
from chat_sse.app import create_app
from chat_sse.settings import Settings
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import RunningService, ask, events, serve, text_of
from tests.support.upstream import ScriptedUpstream

Case = schemathesis.Case[Any]

MODELS = (None, "gpt-4o-mini")
SECRET = "fuzz-0123456789abcdef"


def described(*, with_keys: bool) -> dict[str, Any]:
    """Give the document; `with_keys`: what of it a key is for, as it holds where the service has keys."""
    app = create_app(Settings(openai_base_url="http://127.0.0.1:9/v1"))
    found = document(route for route in app.routes if isinstance(route, Route))
    if with_keys:
        found["paths"] = {
            path: item for path, item in found["paths"].items() if path.startswith(("/ask", "/v1/"))
        }
        for told in (told for item in found["paths"].values() for told in item.values()):
            told["security"].remove({})
    return found


CONFIG = {
    "generation": {"deterministic": True, "max-examples": 20},
    "request-timeout": 10,
    "checks": {
        # A valid request may be about an answer that is not there, bring a used key, or be too large.
        "positive_data_acceptance": {"expected-statuses": ["2xx", "404", "413", "422", "431"]},
        "negative_data_rejection": {"expected-statuses": ["4xx"]},
    },
}


def schema_of(found: dict[str, Any], **config: Any) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_dict(found, config=SchemathesisConfig.from_dict({**CONFIG, **config}))


OPEN = schema_of(described(with_keys=False))
# What each parameter's edges do is tried without keys. All of pytest's processes make these requests.
LOCKED = schema_of(described(with_keys=True), phases={"coverage": {"enabled": False}})


@pytest.fixture(scope="module")
def env(upstream_port: int) -> Iterator[dict[str, str]]:
    """One upstream for all of the module, which answers every question at once."""
    with ScriptedUpstream(port=upstream_port) as upstream:
        # By default a valid question may still hold a system message, which is refused.
        yield {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_SYSTEM_MESSAGES": "allow"}


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


# What a valid body is refused for all the same: JSON Schema has no words for it.
UNSAYABLE = (
    "only white space",
    "Expected a message with text",
    "Expected text or an image",
    "Expected no file in what the assistant said",
    "Expected `int | null`, got `float`",  # 5.0 is an integer to JSON Schema
    "Invalid surrogate",  # half a character, which is no text to UTF-8
)


def excluded_for(case: Case, response: schemathesis.Response) -> list[Any]:
    """Leave out the checks that do not hold, for what a document cannot say."""
    query: dict[str, Any] = case.query or {}
    headers: Any = case.headers or {}
    place = headers.get("Last-Event-ID", "")
    asks_by_url = (case.method, case.path) == ("GET", "/ask")
    excluded = []
    if (
        (asks_by_url and not {"q", "messages"} & set(query))  # one of the two is needed
        or (isinstance(case.body, dict) and case.body.get("model") not in MODELS)
        or (response.status_code == 400 and any(text in response.text for text in UNSAYABLE))
        or not re.fullmatch(PLACE, place)  # schemathesis itself does not always obey a header's pattern
    ):
        excluded.append("positive_data_acceptance")
    if (
        "Authorization" in response.request.headers  # the key, in the place of a header that was no key
        or (asks_by_url and {"q", "messages"} <= set(query))  # the first is enough, and the other not read
    ):
        excluded.append("negative_data_rejection")
    return CHECKS.get_by_names(excluded)


def check(case: Case, service: RunningService, **options: Any) -> None:
    response = case.call(base_url=service.url, **options)
    case.validate_response(response, excluded_checks=excluded_for(case, response))


def test_the_document_that_is_tried_is_the_one_that_is_served(service: RunningService) -> None:
    assert plain_http.get(f"{service.url}/openapi.json").json() == described(with_keys=False)


def each_operation(schema: schemathesis.BaseSchema, name: str, make: Callable[[], Any]) -> dict[str, Any]:
    """Return a test of each operation. One `parametrize` for all gives one id, and xdist runs that once."""
    tests = {}
    for operation in (found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)):
        words = "_".join(re.findall(r"\w+", operation.label.lower()))
        alone = schema.include(method=operation.method, path=operation.path)
        tests[f"test_{words}_{name}"] = alone.parametrize()(make())
    return tests


def does_what_it_says() -> Any:
    def test(case: Case, service: RunningService) -> None:
        check(case, service)

    return test


def does_so_for_the_holder_of_a_key() -> Any:
    def test(case: Case, locked_service: RunningService) -> None:
        check(case, locked_service, headers={"Authorization": f"Bearer {SECRET}"})

    return test


globals().update(each_operation(OPEN, "does_what_the_document_says", does_what_it_says))
globals().update(each_operation(LOCKED, "does_so_for_the_holder_of_a_key", does_so_for_the_holder_of_a_key))
