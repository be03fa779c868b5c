"""The OpenAPI document: the routes, told with the message types, the events and the error tree.

Paths, methods, path parameters and operation ids are those of the routes; schemas and their
descriptions are those of the msgspec types; examples are encoded by the code that answers. What no code
says stands in OPERATIONS, one entry a route: a route without one cannot be documented (KeyError), an entry
without a route is found by a test.

Source: OpenAPI 3.2.0, https://spec.openapis.org/oas/v3.2.0.html; "4.14.5 Sequential Media Types" for the
event stream.
"""

from collections.abc import Iterable

from starlette.routing import Route

from chat_sse import __version__
from chat_sse.api.openapi.components import (
    HEADERS,
    PARAMETERS,
    PATH_PARAMETERS,
    SECURITY_SCHEMES,
    error_example,
    error_responses,
    error_schema,
    header,
    schemas,
)
from chat_sse.api.openapi.examples import REST, STREAM, STREAM_ID
from chat_sse.api.openapi.operations import OPERATIONS
from chat_sse.errors import MethodNotAllowed
from chat_sse.formats.base import Format, Json

DESCRIPTION = f"""\
Ask a question with its history, read the answer as server-sent events.

**One question costs one paid call upstream, whatever the network does, and every answer ends with exactly
one terminal event: `done` or `error`.**

| event | when |
|---|---|
| `start` | first: the answer's `id` and `model` |
| `delta` | a piece of the answer's text |
| `reasoning` | a piece of the model's reasoning, where upstream sends it |
| `done` | last: the answer is complete; `finish_reason` and `usage` |
| `error` | last: the answer is not complete, and why, as in every error body (`ErrorBody`) |

```text
{STREAM.rstrip()}
```

A reader whose connection broke reads on after the last `id` that it has seen. That never asks upstream:

```sh
curl -N http://127.0.0.1:8000/ask/{STREAM_ID} -H 'Last-Event-ID: {STREAM_ID}.1'
```

```text
{REST.rstrip()}
```

- A question sent again with the same `Idempotency-Key` attaches to the same answer.
- An answer that nobody reads is cancelled after a while; `DELETE` stops it at once.
- Every response has an `X-Request-Id`; send your own and it is kept.
"""


def document(routes: Iterable[Route], root_path: str = "") -> Json:
    """Describe these routes, which lie under a path. Raises KeyError for one without entry in OPERATIONS."""
    paths: dict[str, Json] = {}
    for route in routes:
        if route.include_in_schema:
            for method in sorted((route.methods or set()) - {"HEAD"}):  # every GET answers HEAD as well
                paths.setdefault(route.path_format, {})[method.lower()] = _operation(route, method)
    return {
        "openapi": "3.2.0",
        "info": {
            "title": "chat_sse",
            "version": __version__,
            "summary": "A small chat backend",
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": root_path or "/", "description": "This service"}],
        "tags": [
            {"name": "Ask", "description": "Ask, read on, stop."},
            {"name": "OpenAI", "description": "The same in OpenAI's words."},
            {"name": "Operate", "description": "For load balancers and operators."},
            {"name": "Pages", "description": "For people."},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _operation(route: Route, method: str) -> Json:
    known = OPERATIONS[method, route.path_format]
    told: Json = {
        "operationId": route.name,
        "summary": known.summary,
        "tags": [known.tag],
        "parameters": [
            *(_path_parameter(name) for name in route.param_convertors),
            *({"$ref": f"#/components/parameters/{name}"} for name in (*known.parameters, "RequestId")),
        ],
        "responses": {
            **known.responses,
            **error_responses(known.errors, known.wire),
            "default": _any_error(known.wire),
        },
    }
    if known.description:
        told["description"] = known.description
    if known.security:
        # The empty one: a service without keys wants none.
        told["security"] = [*({name: []} for name in known.security), {}]
    if known.body:
        told["requestBody"] = known.body
    return told


def _any_error(wire: type[Format]) -> Json:
    return {
        "description": (
            "Any other error has the same body, such as 405 `method_not_allowed`, and 421 "
            "`misdirected_request` for a host name that the service does not answer to."
        ),
        "headers": header(),
        "content": {
            "application/json": {
                "schema": error_schema(wire),
                "example": error_example(MethodNotAllowed, wire),
            }
        },
    }


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]}
