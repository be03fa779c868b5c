"""The upstream by hand: `python -m tests.support.upstream --port 9000 --delay 0.2`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading

from tests.support.upstream.server import ScriptedUpstream
from tests.support.upstream.steps import Accept, Finish, Pause, Say


def main() -> None:
    """Answer by hand-made requests until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.upstream", description="The scripted upstream."
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each word")
    parser.add_argument("--text", default="Hello from the scripted upstream.", help="what it answers")
    options = parser.parse_args()
    words = [Say(word) for word in options.text.split(" ")]
    words[1:] = [Say(f" {word.text}") for word in words[1:]]
    with ScriptedUpstream(port=options.port) as upstream:
        upstream.answer(
            Accept(), *(step for word in words for step in (Pause(options.delay), word)), Finish()
        )
        sys.stdout.write(f"{upstream.base_url}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
