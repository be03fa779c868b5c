"""The service without a garbage collector: its last act tells how many objects waited for one."""

import atexit
import gc
import runpy

gc.collect()
gc.disable()
atexit.register(lambda: print("objects left:", gc.collect()))  # noqa: T201
runpy.run_module("chat_sse", run_name="__main__", alter_sys=True)
