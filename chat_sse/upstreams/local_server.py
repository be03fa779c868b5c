"""The embedded model's own process. Only this file imports `xllamacpp`: llama.cpp and its server.

The package can serve from inside the parent, but then its loader and its closing hold the interpreter's lock:
nothing else runs while a model loads, and closing it during an answer deadlocks.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

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
    """Read one order, load, write the address, and serve until standard input ends."""
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
