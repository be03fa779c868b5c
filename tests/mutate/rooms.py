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
}
