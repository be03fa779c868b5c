"""What the chat page costs its reader's browser while an answer grows: `python -m tests.bench.page`.

A real Chromium, unthrottled, reads answers from the real service at a pace of 400 deltas a second. Told for
each: the seconds that scripts took, and style and layout; the tasks over 50 ms, after which a browser counts
as not responding at once. The bounds are this project's own, for a quiet machine of 2020 or later.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec
from playwright.sync_api import Browser, expect

from tests.support.browser import chromium
from tests.support.ports import free_port
from tests.support.service import RunningService, serve
from tests.support.upstream import Finish, Pause, Say, ScriptedUpstream, Step

MAX_SCRIPT_SECONDS = 1.5
WAIT_MS = 120_000
LONG_MS = 50
DRIVER = "DevToolsSession"
BURST = 20
BURST_SECONDS = 0.05

PARAGRAPH = (
    "A sentence with **bold**, `code`, *emphasis* and [a link](https://example.org/) in it. " * 5 + "\n\n"
)
SECTION = f"## A heading\n\n{PARAGRAPH}- one\n- two\n- three\n\n```py\nprint('some code')\n```\n\n{PARAGRAPH}"
CODE = "    value = compute(value, 'text')  # and a word on why\n"
ITEM = "- an item with **bold** and `code` in it, and some more words to it\n"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, in pieces of equal length."""

    name: str
    text: str
    deltas: int

    def steps(self) -> Iterator[Step]:
        size = -(-len(self.text) // self.deltas)
        for number, start in enumerate(range(0, len(self.text), size)):
            if number % BURST == 0:
                yield Pause(BURST_SECONDS)
            yield Say(self.text[start : start + size])
        yield Finish()


def _of(text: str, chars: int) -> str:
    return (text * (chars // len(text) + 1))[:chars]


CASES = (
    Case(name="100 KB of everything", text=_of(SECTION, 100_000), deltas=4_000),
    Case(name="one code block of 24 KB", text=f"```py\n{_of(CODE, 24_000)}\n```\n", deltas=1_000),
    Case(name="one list of 24 KB", text=_of(ITEM, 24_000), deltas=1_000),
    Case(name="one paragraph of 8 KB", text=_of(PARAGRAPH.strip() + " ", 8_000), deltas=320),
)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer cost the browser's main thread."""

    script_seconds: float
    layout_seconds: float
    long_tasks: int
    longest_ms: float


def measure(browser: Browser, service: RunningService, upstream: ScriptedUpstream, case: Case) -> Cost:
    """Ask once, and read what Chromium has counted from the question to the end of the answer."""
    upstream.answer_next(*case.steps())
    context = browser.new_context(viewport={"width": 1180, "height": 820})
    page = context.new_page()
    page.goto(f"{service.url}/")
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # CPU time: others use this machine too

    def counted() -> dict[str, float]:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return {metric["name"]: metric["value"] for metric in metrics}

    before = counted()
    browser.start_tracing(page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"])
    page.fill("#question", case.name)
    page.press("#question", "Enter")
    page.evaluate("document.getElementById('jump').click()")  # the reader follows
    expect(page.locator(".answer[aria-busy=false]")).to_be_attached(timeout=WAIT_MS)
    after = counted()
    tasks = _tasks_ms(browser.stop_tracing())
    context.close()
    spent = {name: after[name] - before[name] for name in after}
    return Cost(
        script_seconds=spent["ScriptDuration"],
        layout_seconds=spent["LayoutDuration"] + spent["RecalcStyleDuration"],
        long_tasks=sum(task > LONG_MS for task in tasks),
        longest_ms=max(tasks, default=0.0),
    )


def _tasks_ms(trace: bytes) -> list[float]:
    """Return the CPU time of each task of the page's main thread, without those that drive the browser."""
    events = msgspec.json.decode(trace)["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    timed = [event for event in events if "tdur" in event and (event["pid"], event["tid"]) in threads]
    driven = [event["ts"] for event in timed if DRIVER in str(event.get("args"))]
    return [
        event["tdur"] / 1_000
        for event in timed
        if event["name"] == "RunTask"
        and not any(event["ts"] <= at <= event["ts"] + event["dur"] for at in driven)
    ]


@contextmanager
def _parts() -> Iterator[tuple[Browser, RunningService, ScriptedUpstream]]:
    port = free_port()
    env = {"OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    with ScriptedUpstream(port=port) as upstream, serve(env) as service, chromium() as browser:
        yield browser, service, upstream


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", help="Cases with these words in their name.")
def main(only: str) -> None:
    """Measure what growing answers cost the page. Prints a table."""
    click.echo(f"CPU time of the page's main thread; the bound on scripts is {MAX_SCRIPT_SECONDS} s.\n")
    click.echo("| answer | deltas | script, s | style and layout, s | tasks over 50 ms | longest, ms |")
    click.echo("|---|---:|---:|---:|---:|---:|")
    with _parts() as (browser, service, upstream):
        for case in CASES:
            if only not in case.name:
                continue
            cost = measure(browser, service, upstream, case)
            click.echo(
                f"| {case.name} | {case.deltas} | {cost.script_seconds:.2f} | {cost.layout_seconds:.2f} "
                f"| {cost.long_tasks} | {cost.longest_ms:.0f} |"
            )


if __name__ == "__main__":
    main()
