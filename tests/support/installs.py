"""uv, wherever it is, and a wheel of this project."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def find_uv() -> str:
    """Return the uv that runs this, one that is on the path, or the one that `tests/run` installs."""
    ours = (CACHE / "chat-sse").glob("uv-*/bin/uv")
    found = os.environ.get("UV") or shutil.which("uv") or next(map(str, ours), None)
    assert found is not None, "uv is not installed"
    return found


def build_wheel(folder: Path) -> Path:
    """Build the wheel that would be published."""
    subprocess.run(
        [find_uv(), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)], check=True
    )
    [wheel] = folder.glob("*.whl")
    return wheel
