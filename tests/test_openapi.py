"""/openapi.json: it is valid, it tells all routes, and its examples are what the service does."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV32SpecValidator
from starlette.routing import Route

import chat_sse.web.docs
from chat_sse.api.openapi.operations import OPERATIONS
from chat_sse.app import create_app
from chat_sse.errors import ChatError
from chat_sse.formats import formats_at
from chat_sse.settings import Settings
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, events, parse_sse, serve
from tests.support.upstream import Finish, Refuse, Say, ScriptedUpstream

# As a browser sends it: it says itself that the page is another site's.
OTHER_PAGE = {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site"}

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def document(service: RunningService) -> dict[str, Any]:
    """The document, as it is served."""
    response = plain_http.get(f"{service.url}/openapi.json")
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = response.json()
    return found


def operations(document: dict[str, Any]) -> list[Operation]:
    return [
        (method.upper(), path, told)
        for path, item in document["paths"].items()
        for method, told in item.items()
    ]


def errors_of(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the documented error bodies of an operation, by code."""
    responses = [response for status, response in told["responses"].items() if status[0] in "45"]
    examples = [response["content"]["application/json"]["examples"] for response in responses]
    return {code: example["value"] for found in examples for code, example in found.items()}


def tree(kind: type[ChatError] = ChatError) -> Iterator[type[ChatError]]:
    for child in kind.__subclasses__():
        yield child
        yield from tree(child)


def test_the_document_is_valid_openapi_3_2(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.2.0"
    OpenAPIV32SpecValidator(document).validate()


def test_the_document_tells_all_routes_and_no_others(document: dict[str, Any]) -> None:
    app = create_app(Settings(openai_base_url="http://127.0.0.1:9/v1"))
    served = {
        (method, route.path_format)
        for route in app.routes
        if isinstance(route, Route) and route.include_in_schema
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert {(method, path) for method, path, _ in operations(document)} == served
    assert set(OPERATIONS) == served


def test_each_operation_has_a_short_title_and_an_id_of_its_own(document: dict[str, Any]) -> None:
    found = operations(document)
    assert [told["summary"] for _, _, told in found if not 2 < len(told["summary"]) < 20] == []
    assert len({told["summary"] for _, _, told in found}) == len(found)
    assert len({told["operationId"] for _, _, told in found}) == len(found)


def test_the_description_tells_each_event_and_its_examples_are_what_the_service_sends(
    service: RunningService, upstream: ScriptedUpstream, document: dict[str, Any]
) -> None:
    told = document["info"]["description"]
    assert re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE) == list(
        document["components"]["schemas"]["Event"]["discriminator"]["mapping"]
    )
    whole, rest = re.findall(r"^```text\n(.*?)\n```$", told, re.DOTALL | re.MULTILINE)
    [(example_id, last_seen)] = re.findall(r"/ask/(\w+) -H 'Last-Event-ID: (\S+)'", told)
    upstream.answer(Say("Hello"), Say(" there!"), Finish("stop"))
    answer = ask(service.url)
    stream_id = events(answer)[0]["id"]
    resumed = plain_http.get(
        f"{service.url}/ask/{stream_id}", headers={"Last-Event-ID": last_seen.replace(example_id, stream_id)}
    )
    assert answer.text.rstrip().replace(stream_id, example_id) == whole
    assert resumed.text.rstrip().replace(stream_id, example_id) == rest


def test_each_error_of_the_tree_is_documented_with_its_status(document: dict[str, Any]) -> None:
    documented = {
        (int(status), code)
        for _, path, told in operations(document)
        for status, response in told["responses"].items()
        if status[0] in "45" and not path.startswith("/v1/")  # those have OpenAI's statuses
        for code in response["content"]["application/json"]["examples"]
    }
    raised = {(kind.status, kind.code) for kind in tree() if "code" in vars(kind)}
    everywhere = {(404, "not_found"), (405, "method_not_allowed"), (421, "misdirected_request")}
    assert raised - documented == everywhere  # those belong to no operation
    assert documented <= raised


def test_an_unchanged_document_is_not_sent_again(service: RunningService) -> None:
    first = plain_http.get(f"{service.url}/openapi.json")
    again = plain_http.get(f"{service.url}/openapi.json", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["question", "conversation", "image"])
def test_each_example_of_a_question_is_answered_as_the_example_of_the_stream_says(
    service: RunningService, upstream: ScriptedUpstream, document: dict[str, Any], name: str
) -> None:
    told = document["paths"]["/ask"]["post"]
    question = told["requestBody"]["content"]["application/json"]["examples"][name]["value"]
    documented = parse_sse(
        told["responses"]["200"]["content"]["text/event-stream"]["examples"]["sse"]["value"].encode()
    )
    upstream.answer(Say("Hello"), Say(" there!"), Finish("stop"))
    answer = parse_sse(ask(service.url, question).content)
    old_id, new_id = documented[0][1]["id"], answer[0][1]["id"]
    documented[0][1]["id"] = new_id
    assert answer == [(event_id.replace(old_id, new_id), event) for event_id, event in documented]


@pytest.mark.parametrize("name", [kind.name for kind in formats_at()])
def test_each_format_is_documented_with_an_answer_as_it_is_sent(
    service: RunningService, upstream: ScriptedUpstream, document: dict[str, Any], name: str
) -> None:
    upstream.answer(Say("Hello"), Say(" there!"), Finish("stop"))
    question = {**HELLO, "threadId": "chat-1", "runId": "run-1"}  # AG-UI's answer repeats them
    response = plain_http.post(f"{service.url}/ask?format={name}", json=question, timeout=30)
    content = document["paths"]["/ask"]["post"]["responses"]["200"]["content"]
    told = content[response.headers["content-type"].partition(";")[0]]
    example = told["examples"][name]["value"] if "examples" in told else told["example"]
    sent = response.json() if name == "json" else response.text
    stream_id = re.compile(r"[0-9a-f]{32}")
    assert stream_id.sub("ID", str(sent)) == stream_id.sub("ID", str(example))


def test_the_documented_formats_are_those_that_are_offered(
    service: RunningService, document: dict[str, Any]
) -> None:
    offered = plain_http.get(f"{service.url}/ask?q=Hi&format=none").json()["details"]
    enum = document["components"]["parameters"]["Format"]["schema"]["enum"]
    assert re.findall(r"\?format=([\w-]+)", offered) == enum


def test_the_event_schemas_allow_what_the_stream_sends(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    stream = document["paths"]["/ask"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    assert {"$ref": "#/components/schemas/ServerSentEvent"} in stream["itemSchema"]["oneOf"]
    names = schemas["Event"]["discriminator"]["mapping"]
    for event_id, event in parse_sse(stream["examples"]["sse"]["value"].encode()):
        assert re.fullmatch(schemas["ServerSentEvent"]["properties"]["id"]["pattern"], event_id)
        schema = schemas[names[event["type"]].rpartition("/")[2]]
        assert set(schema["required"]) <= set(event) <= set(schema["properties"])


@pytest.mark.parametrize(
    ("code", "request_line", "options"),
    [
        ("invalid_request", "POST /ask", {"json": {}}),
        ("stream_not_found", "POST /ask", {"json": HELLO, "headers": {"Last-Event-ID": "none.0"}}),
        ("not_acceptable", "POST /ask?format=xml", {"json": HELLO}),
        ("payload_too_large", "POST /ask", {"json": {"pad": "x" * 1_048_577}}),
        ("unsupported_media_type", "POST /ask", {"content": b"Hello!"}),
        ("forbidden_origin", "POST /ask", {"json": HELLO, "headers": OTHER_PAGE}),
        ("forbidden_origin", "GET /ask/none", {"headers": OTHER_PAGE}),
        ("stream_not_found", "GET /ask/none", {}),
        ("stream_not_found", "DELETE /ask/none", {}),
        ("not_acceptable", "GET /ask/none?format=xml", {}),
    ],
)
def test_each_example_of_a_refusal_is_what_the_service_says(
    service: RunningService, document: dict[str, Any], code: str, request_line: str, options: Any
) -> None:
    method, path = request_line.split()
    response = plain_http.request(method, service.url + path, timeout=30, **options)
    template = path.partition("?")[0].replace("none", "{stream_id}")
    told = document["paths"][template][method.lower()]
    expected = errors_of(told)[code]
    assert code in told["responses"][str(response.status_code)]["description"]
    found = response.json()
    if code == "invalid_request":  # the example shows one fault of many
        assert found["details"].startswith("Object missing required field `messages`")
    else:
        assert found["details"] == expected["details"]
    volatile = {"request_id": "", "details": ""}
    assert {**found, **volatile} == {**expected, **volatile}


def test_each_operation_on_answers_takes_a_key_and_tells_the_refusal_as_it_is(
    upstream: ScriptedUpstream, document: dict[str, Any]
) -> None:
    schemes = document["components"]["securitySchemes"]
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_API_KEYS": "a:0123456789abcdef"}
    with serve(env) as service:
        for method, path, told in operations(document):
            needs_a_key = path in ("/ask", "/me") or path.startswith(("/ask/", "/v1/"))
            assert needs_a_key == ({"ApiKey": []} in told.get("security", []))
            assert all(name in schemes for way in told.get("security", []) for name in way)
            by_link = path.endswith("/{stream_id}")
            assert by_link == ({"Link": []} in told.get("security", []))
            response = plain_http.request(method, service.url + path)
            assert needs_a_key == (response.status_code == 401)
            if needs_a_key:
                assert {**response.json(), "request_id": ""} == {
                    **errors_of(told)["unauthenticated"],
                    "request_id": "",
                }


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("authentication_error", 401),
        ("rate_limit_error", 429),
        ("invalid_request_error", 400),
        ("service_unavailable_error", 503),
    ],
)
def test_each_example_of_an_upstream_refusal_is_what_the_service_says(
    service: RunningService, upstream: ScriptedUpstream, document: dict[str, Any], code: str, status: int
) -> None:
    upstream.answer(Refuse(status, headers={"Retry-After": "7"}))
    response = ask(service.url)
    expected = errors_of(document["paths"]["/ask"]["post"])[code]
    assert response.status_code == 500
    assert "Retry-After" in document["paths"]["/ask"]["post"]["responses"]["500"]["headers"]
    volatile = {"request_id": "", "details": ""}
    assert {**response.json(), **volatile} == {**expected, **volatile}


def test_the_documented_statuses_of_asking_and_reading_on_are_the_real_ones(
    service: RunningService, upstream: ScriptedUpstream, document: dict[str, Any]
) -> None:
    upstream.answer(Say("Hi"), Finish())
    accepted = ask(service.url, headers={"Prefer": "respond-async"})
    place = accepted.headers["location"]
    read = plain_http.get(service.url + place, timeout=30)
    last_id = parse_sse(read.content)[-1][0]
    ended = plain_http.get(service.url + place, headers={"Last-Event-ID": last_id})
    stopped = plain_http.delete(service.url + place)
    attach, stop = (
        document["paths"]["/ask/{stream_id}"][method]["responses"] for method in ("get", "delete")
    )
    asked = document["paths"]["/ask"]["post"]["responses"]
    for response, status, told in (
        (accepted, 202, asked["202"]),
        (read, 200, attach["200"]),
        (ended, 204, attach["204"]),
        (stopped, 204, stop["204"]),
    ):
        assert response.status_code == status
        assert all(name in response.headers for name in told["headers"])


def test_an_idempotency_key_may_be_as_long_as_documented_and_no_longer(
    service: RunningService, upstream: ScriptedUpstream, document: dict[str, Any]
) -> None:
    longest = document["components"]["parameters"]["IdempotencyKey"]["schema"]["maxLength"]
    assert ask(service.url, headers={"Idempotency-Key": "k" * longest}).status_code == 200
    assert ask(service.url, headers={"Idempotency-Key": "k" * (longest + 1)}).status_code == 400


def test_the_examples_of_the_operators_paths_are_what_the_service_says(
    service: RunningService, document: dict[str, Any]
) -> None:
    for path in ("/healthz", "/readyz"):
        told = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
        assert plain_http.get(service.url + path).json() == told["example"]


def test_the_vendored_files_are_those_that_were_fetched() -> None:
    folder = Path(chat_sse.web.docs.__path__[0]) / "assets"
    listed = re.findall(
        r"^(\S+)  \S+@\S+.*  ([0-9a-f]{64})$", (folder / "VENDORED.txt").read_text(), re.MULTILINE
    )
    assert len(listed) == 7
    for name, digest in listed:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
