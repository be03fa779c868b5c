"""Named conversations, each in a file that only its owner can read.

The files are in the user's state directory: on Linux `$XDG_STATE_HOME/chat-sse`, which is
`~/.local/state/chat-sse` (XDG Base Directory Specification).
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from platformdirs import user_state_path

from chat_sse.messages import Message

# Every turn pays for the whole conversation again, and services admit 200 messages.
MAX_MESSAGES = 100
MAX_CHARS = 200_000

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


class ChatUnusable(Exception):
    """A conversation's name is not valid, or its file cannot be read or written."""


class Chat:
    """One conversation on disk."""

    def __init__(self, name: str) -> None:
        """Raises ChatUnusable for a name that is no safe file name."""
        if not _NAME.fullmatch(name):
            raise ChatUnusable("a chat's name is 1 to 64 of A-Z a-z 0-9 . _ -, and begins with no dot")
        self.path = user_state_path("chat-sse", appauthor=False) / f"{name}.json"

    def load(self) -> list[Message]:
        """Return the messages so far. Raises ChatUnusable for a file that cannot be read."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=list[Message])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ChatUnusable(f"{self.path}: {exc}") from exc

    def add(self, *messages: Message) -> None:
        """Add messages to what is in the file by now, and keep the newest. Raises ChatUnusable."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _alone_in(self.path.parent):
                self._replace(newest([*self.load(), *messages]))
        except OSError as exc:
            raise ChatUnusable(f"{self.path}: {exc}") from exc

    def _replace(self, messages: list[Message]) -> None:
        """Replace the file, atomically."""
        # Created with mode 0600.
        number, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(msgspec.json.encode(messages))
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time change a folder. Windows cannot lock one: two at once are not kept apart."""
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415 - not on Windows

    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def newest(messages: list[Message]) -> list[Message]:
    """Return the newest messages within the bounds: from a question on, and never without the last one."""
    kept: list[Message] = []
    chars = 0
    for message in reversed(messages[-MAX_MESSAGES:]):
        chars += len(message.content)
        if kept and chars > MAX_CHARS:
            break
        kept.insert(0, message)
    first = next((index for index, message in enumerate(kept) if message.role == "user"), 0)
    return kept[first:]
