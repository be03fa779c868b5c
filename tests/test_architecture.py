"""The house: imports point down, rooms of one floor stand alone, and each foreign library has its room."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "chat_sse"
MAX_LINES = 300
# What a browser runs or shows; `.ts` are the types of the client module.
PAGE_SUFFIXES = (".js", ".mjs", ".ts", ".css", ".html")

# From the ground up. A room may import rooms of lower floors and itself, and nothing else of this package.
FLOORS = (
    {"errors", "figures", "trace_context"},
    {"child_process", "events", "origins", "redis_access", "standing", "target", "ui_messages"},
    {"messages", "models_file"},
    {"completions", "policy", "records", "run_agent_input", "settings"},
    {"access", "formats", "limits", "observe", "stores", "upstreams"},
    {"relay"},
    {"api", "web"},
    {"lifetime", "opening"},
    {"app"},
    {"server", "terminal"},
    {"cli"},
    {"__main__"},
)

# Where a foreign library may be imported; those not named here are imported nowhere.
LIBRARIES = {
    "aiohappyeyeballs": ("upstreams/http/",),
    "aiohttp": ("upstreams/openai/",),
    "click": ("cli.py", "server/", "terminal/"),
    "dotenv": ("settings/",),
    "hiredis": ("redis_access.py",),
    "httptools": ("server/", "upstreams/http/"),
    "httpx2": ("access/jwks.py", "terminal/", "upstreams/openai/"),
    "itsdangerous": ("access/",),
    "jwt": ("access/jwks.py", "access/jwt.py"),
    "markdown_it": ("terminal/",),
    "msgspec": ("",),
    "openai": ("upstreams/openai/",),
    "opentelemetry": ("observe/", "upstreams/opening.py", "upstreams/traced.py"),
    "platformdirs": ("terminal/", "upstreams/local_file.py"),
    "prometheus_client": ("observe/",),
    "prompt_toolkit": ("terminal/conversation.py",),
    "redis": ("limits/redis", "redis_access.py", "stores/redis/"),
    "rich": ("terminal/",),
    "sse_starlette": ("app.py", "formats/"),
    "starlette": ("access/", "api/", "app.py", "formats/", "lifetime.py", "observe/", "opening.py", "web/"),
    "uvicorn": ("server/",),
    "xllamacpp": ("upstreams/local_server.py",),
}


class Import(NamedTuple):
    """One import of a module: by whom, where, and of what."""

    importer: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"chat_sse/{self.importer}:{self.line} imports {self.module}"


def imports_of(source: str, importer: str) -> Iterator[Import]:
    """Yield all imports of a module, those within functions too. `from a import b` imports `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"chat_sse/{importer}:{node.lineno} has a relative import"
            for alias in node.names:
                yield Import(importer, node.lineno, f"{node.module}.{alias.name}")


def room_of(path: str) -> str:
    """Name the room of a file of the package: its folder at the top, or itself."""
    return path.partition("/")[0].removesuffix(".py")


def floor_of(room: str) -> int:
    """Count a room's floor from the ground."""
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def fault_of(found: Import) -> str | None:
    """Say what is wrong with an import, if anything."""
    top, _, rest = found.module.partition(".")
    if top in sys.stdlib_module_names:
        return None
    if top != "chat_sse":
        allowed = LIBRARIES.get(top, ())
        return None if found.importer.startswith(allowed) else f"{found}, whose room is {allowed}"
    here, there = room_of(found.importer), rest.partition(".")[0]
    if there in (here, "__version__"):
        return None
    if floor_of(there) < floor_of(here):
        return None
    return f"{found}, which is not below it"


FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def is_vendored(path: Path) -> bool:
    """Tell whether a file is another project's: those have a list of their hashes beside them."""
    if path.parent.name == "vendor":
        return True
    notes = path.parent / "VENDORED.txt"
    return notes.exists() and f"\n{path.name}  " in notes.read_text()


PAGES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*")
    if path.suffix in PAGE_SUFFIXES and not is_vendored(path)
)


@pytest.mark.parametrize("path", [path for path in FILES if path != "__init__.py"])
def test_a_module_imports_only_what_is_below_it_and_the_libraries_of_its_room(path: str) -> None:
    found = imports_of((PACKAGE / path).read_text(), path)
    assert [fault for one in found if (fault := fault_of(one))] == []


@pytest.mark.parametrize("path", [*FILES, *PAGES])
def test_a_file_is_short_enough_to_read(path: str) -> None:
    assert len((PACKAGE / path).read_text().splitlines()) <= MAX_LINES


def test_the_bound_on_lines_holds_for_the_pages_and_not_for_vendored_files() -> None:
    assert {"web/chat/ask.js", "web/chat/main.js", "web/chat/chat.css", "web/chat/index.html"} <= set(PAGES)
    assert "web/docs/assets/redoc-page.js" in PAGES
    assert not {"web/chat/vendor/purify.es.mjs", "web/docs/assets/redoc.standalone.js"} & set(PAGES)


@pytest.mark.parametrize("path", [path for path in FILES if path.endswith("__init__.py")])
def test_each_package_says_what_lives_there(path: str) -> None:
    assert ast.get_docstring(ast.parse((PACKAGE / path).read_text()))


@pytest.mark.parametrize(
    ("importer", "line"),
    [
        ("relay/relay.py", "from chat_sse.api import routes"),
        ("formats/sse.py", "from chat_sse.stores.base import Log"),
        ("stores/memory.py", "import chat_sse.limits.slots"),
        ("api/routes.py", "import uvicorn"),
        ("relay/relay.py", "def f():\n    from redis.asyncio import Redis"),
        ("access/keys.py", "import requests"),
    ],
)
def test_a_wrong_import_is_found_and_its_line_named(importer: str, line: str) -> None:
    [fault] = [fault for one in imports_of(line, importer) if (fault := fault_of(one))]
    number = len(line.splitlines())
    assert fault.startswith(f"chat_sse/{importer}:{number} imports ")
