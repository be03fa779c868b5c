"""The service without a garbage collector: its last act tells how many objects waited for one, and which."""

import atexit
import gc
import runpy
from collections import Counter


def tell() -> None:
    """Print what waited."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    left = gc.collect()
    kinds = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    print(f"objects left: {left}", *(f"{count} {kind}" for kind, count in kinds.most_common(40)), sep=", ")  # noqa: T201


gc.collect()
gc.disable()
atexit.register(tell)
runpy.run_module("chat_sse", run_name="__main__", alter_sys=True)
