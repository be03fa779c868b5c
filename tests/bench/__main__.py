"""The command: `python -m tests.bench --quick`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from tests.bench import board, report, servers
from tests.bench.builds import installed, quickest
from tests.bench.environments import Unavailable, draw, find_uv
from tests.bench.launch import Server
from tests.bench.measure import FULL, QUICK, measure
from tests.bench.servers import REPOSITORY

ARTIFACTS = REPOSITORY / "tests" / ".artifacts"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--quick", is_flag=True, help="About a minute instead of ten: less of everything, no 4,000 streams."
)
@click.option("--only", default="", help="Servers to measure, with commas between, such as chat_sse,nginx.")
@click.option("--rounds", type=click.IntRange(1, 20), help="How often each is measured.  [default: 3]")
@click.option(
    "--chat-sse",
    "checkouts",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another checkout of ours, with its own .venv, to compare with; may be given again.",
)
@click.option("--workers", type=click.IntRange(2, 64), help="Also measure ours with so many processes.")
@click.option(
    "--redis", is_flag=True, help="Also measure ours with its log on Redis, whose cost counts as ours."
)
@click.option("--litellm", is_flag=True, help="Also measure LiteLLM, which takes minutes to install.")
@click.option(
    "--board", "with_board", is_flag=True, help="Also the public gateway board's workload, minutes a server."
)
@click.option(
    "--this-python",
    is_flag=True,
    help="Stay with this Python where a quicker build of its version is installed; --chat-sse stays as well.",
)
@click.option("--out", default=ARTIFACTS, type=click.Path(path_type=Path), help="Where the results go.")
def main(
    quick: bool,
    only: str,
    rounds: int | None,
    checkouts: tuple[Path, ...],
    workers: int | None,
    redis: bool,
    litellm: bool,
    with_board: bool,
    this_python: bool,
    out: Path,
) -> None:
    """Measure what a delta and a stream cost, here and in the peers. Writes bench.md, .json and .png."""
    if not (this_python or checkouts):  # a checkout has a Python of its own, which is to be ours as well
        _go_on_with_the_quickest_build()
    load_before = os.getloadavg()
    plan = QUICK if quick else FULL
    plan = msgspec.structs.replace(
        plan,
        rounds=rounds or plan.rounds,
        board=(board.QUICK if quick else board.FULL) if with_board else None,
    )
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    offered = list(_servers(checkouts, workers, redis=redis, quick=quick, litellm=litellm))
    if unknown := wanted - {server.name for server in offered}:
        raise click.UsageError(
            f"--only {', '.join(sorted(unknown))}: there is {', '.join(s.name for s in offered)}"
        )
    chosen = [server for server in offered if not wanted or server.name in wanted]

    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - started:6.1f} s  {text}", err=True)

    say(f"load average {load_before[0]:.2f}; measuring {', '.join(server.name for server in chosen)}")
    made = report.make(plan, measure(plan, chosen, say), load_before)
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(made)))
    (out / "bench.md").write_text(report.markdown(made))
    say(f"tables in {out / 'bench.md'}")
    _plot(out)
    say(f"plot in {out / 'bench.png'}")
    click.echo(report.markdown(made))


def _go_on_with_the_quickest_build() -> None:
    """Begin anew with a Python that was built for speed, as an image's is. Returns where there is none."""
    uv = find_uv()
    build = quickest(installed(uv)) if uv else None
    if uv is None or build is None:
        return
    click.echo(f"with {build}, the quicker build of this Python (--this-python stays)", err=True)
    command = [uv, "run", "--quiet", "--isolated", "--no-dev", "--extra", "redis", "--python", build]
    command += ["python", "-m", "tests.bench", *sys.argv[1:], "--this-python"]
    os.execv(uv, command)  # noqa: S606 - what was given to us, and to no shell


def _servers(
    checkouts: tuple[Path, ...], workers: int | None, *, redis: bool, quick: bool, litellm: bool
) -> Iterator[Server]:
    yield servers.chat_sse()
    for checkout in checkouts:
        yield servers.chat_sse(checkout)
    if redis:
        yield servers.chat_sse(redis=True)
    if workers:
        yield servers.chat_sse(workers=workers, redis=True)  # several processes need a log that they share
    yield servers.nginx()
    yield servers.sglang_router(install=not quick)
    yield servers.vllm_router(install=not quick)
    yield servers.fastapi(install=True)
    if litellm:
        yield servers.litellm(install=True)


def _plot(out: Path) -> None:
    try:
        draw(Path(__file__).with_name("plot.py"), out / "bench.json", out / "bench.png")
    except Unavailable as exc:
        raise click.ClickException(f"no plot: {exc}") from exc


if __name__ == "__main__":
    main()
