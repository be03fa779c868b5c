"""Runs in each process of a soaked site, since Python imports a module of this name from its path.

At SIGUSR2 it writes how many blocks of memory Python's objects have. Unlike the process's size, that does not
grow while objects of different ages find their places.
"""

import gc
import os
import signal
import sys
from pathlib import Path


def _tell(*_: object) -> None:
    gc.collect()
    told = Path(os.environ["SOAK_FOLDER"]) / str(os.getpid())
    told.with_suffix(".new").write_text(str(sys.getallocatedblocks()))
    told.with_suffix(".new").rename(told)


if "SOAK_FOLDER" in os.environ:
    signal.signal(signal.SIGUSR2, _tell)
