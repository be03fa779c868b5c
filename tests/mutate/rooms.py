"""Which files a room has, and which tests are to notice a change of them."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent


class Room(NamedTuple):
    """A room: `paths` of its files, from the project's folder; `tests`, as pytest takes them."""

    paths: tuple[str, ...]
    tests: tuple[str, ...]


def files(*patterns: str) -> tuple[str, ...]:
    """List the package's files."""
    found = {path for pattern in patterns for path in (ROOT / "chat_sse").glob(pattern)}
    return tuple(sorted(str(path.relative_to(ROOT)) for path in found if path.name != "__init__.py"))


ROOMS = {
    "relay": Room(files("relay/*.py"), ("tests/inside/relay",)),
    "formats": Room(
        files("formats/*.py"),
        (
            "tests/inside/formats",
            "tests/test_event_stream.py",
            "tests/test_negotiation.py",
            "tests/test_formats.py",
        ),
    ),
    "limits": Room(
        tuple(path for path in files("limits/*.py") if "redis" not in path and "settlements" not in path),
        ("tests/inside/limits",),
    ),
    "stores": Room((*files("stores/*.py"), *files("stores/redis/[ilo]*.py")), ("tests/inside/stores",)),
    "redis": Room(
        files(
            *("redis_access.py", "limits/redis.py", "limits/settlements.py"),
            *(
                f"stores/redis/{name}.py"
                for name in ("client", "commands", "pubsub", "scripts", "store", "tasks")
            ),
        ),
        ("tests/inside/redis",),
    ),
    "upstreams": Room(
        files(
            "upstreams/fallback.py",
            "upstreams/http/*.py",
            *(f"upstreams/openai/{name}.py" for name in ("chunks", "classify", "client", "events")),
            *(f"upstreams/openai/{name}.py" for name in ("passthrough", "refusal", "stream")),
        ),
        (
            "tests/test_classify.py",
            "tests/inside/upstreams/test_choices.py",
            "tests/inside/upstreams/test_whole_chunk.py",
            "tests/inside/upstreams/test_connections.py",
            "tests/inside/upstreams/test_addresses.py",
            "tests/inside/upstreams/test_pool.py",
            "tests/inside/upstreams/test_fallback.py",
            "tests/inside/upstreams/test_refusals.py",
            "tests/inside/upstreams/test_decoder.py",
            "tests/inside/upstreams/test_splitter.py",
            "tests/inside/upstreams/test_passthrough.py",
            "tests/inside/upstreams/test_replies.py",
            "tests/inside/upstreams/test_streams.py",
            "tests/inside/upstreams/test_asking.py",
            "tests/test_chunks.py",
            "tests/test_tolerant.py",
            "tests/test_template.py",
        ),
    ),
    "access": Room(files("access/*.py"), ("tests/inside/access", "tests/test_address.py")),
}
