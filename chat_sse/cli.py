"""The command line: `chat-sse` serves, `chat-sse ask "…"` asks, `chat-sse chat` is a conversation.

A command imports its packages when it runs, so that asking does not load the server's, nor serving the
terminal's.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from chat_sse import __version__

ASK_HELP = """Ask a running service, and read the answer as it comes.

In a terminal the answer is drawn as Markdown, without control characters; a pipe gets the text as it is.
Standard input is appended to the question; "-" alone reads the question from there.

A broken connection is resumed where it broke, and paid once. Ctrl-C stops the answer upstream.

\b
Exit codes:
  0    the answer is whole
  1    the answer failed, or was cut short
  2    the command was wrong
  3    the service cannot be reached
  4    the service refused the question
  130  stopped by Ctrl-C
"""

CHAT_HELP = """Talk to a running service. Needs the extra `chat`.

\b
Enter        sends the question
Esc, Enter   begins a new line; several lines can be pasted
Ctrl-C       stops the answer, and not the program
Ctrl-D       leaves
/model NAME  asks another model; /model alone lists them
/new NAME    begins a new conversation, or continues that of a name
"""

CHECK_HELP = """Find what would keep the service from answering. Nothing is asked that costs anything.

Looks at the settings, the models file and the embedded model's, connects to Redis, and asks each upstream for
its list of models, with certificates and keys as in service.

\b
Exit codes:
  0  all is well, as far as can be told
  2  a setting is wrong
  3  Redis or an upstream cannot be used
"""


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", help="Address to listen on.  [default: CHAT_SSE_HOST or 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port.  [default: CHAT_SSE_PORT, PORT or 8000]")
@click.option(
    "--uds",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Unix socket instead.  [default: CHAT_SSE_UDS]",
)
@click.option("--workers", type=click.IntRange(1, 256), help="Processes.  [default: CHAT_SSE_WORKERS or 1]")
@click.option("--root-path", help="Path at which a proxy shows it, such as /chat.")
@click.option("--print-config", is_flag=True, help="Print each setting and where it is set, and exit.")
@click.version_option(__version__, prog_name="chat-sse")
@click.pass_context
def main(context: click.Context, /, print_config: bool, **given: str | int | Path | None) -> None:
    """Serve /ask. Everything else is set in the environment or in .env: see .env.example."""
    if given["uds"] is not None and (given["host"], given["port"]) != (None, None):
        raise click.UsageError("--uds is instead of --host and --port")
    if context.invoked_subcommand is not None:
        if print_config or any(value is not None for value in given.values()):
            names = "--host, --port, --uds, --workers, --root-path and --print-config"
            raise click.UsageError(f"{names} are for serving")
        return
    from chat_sse.server.serve import override, serve  # noqa: PLC0415 - see above

    overridden = override(given)
    if print_config:
        from chat_sse.server.check import print_config as print_it  # noqa: PLC0415

        sys.exit(print_it(overridden))
    serve()


@main.command(help=CHECK_HELP, short_help="Find what would keep the service from answering.")
def check() -> None:
    """Find what would keep the service from answering."""
    from chat_sse.server.check import check as find_faults  # noqa: PLC0415 - see above

    sys.exit(find_faults())


def _of_a_client(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which service is asked, and how."""
    url = "http://127.0.0.1:8000"
    for option in (
        click.option("--chat", metavar="NAME", help="Continue this conversation, or begin it."),
        click.option("--model", help="One of those that the service offers."),
        click.option(
            "--key", envvar="CHAT_SSE_KEY", help="A key or token; sent as a bearer.", show_envvar=True
        ),
        click.option("--url", envvar="CHAT_SSE_URL", default=url, show_default=True, show_envvar=True),
    ):
        command = option(command)
    return command


@contextmanager
def _interruptible() -> Iterator[None]:
    """End by Ctrl-C as programs do; click would say "Aborted!" and exit with 1."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)


@main.command(help=ASK_HELP, short_help="Ask a running service from the terminal.")
@click.argument("question", nargs=-1)
@_of_a_client
def ask(question: tuple[str, ...], **options: Any) -> None:
    """Ask a running service."""
    with _interruptible():
        from chat_sse.terminal.command import ask_in_terminal  # noqa: PLC0415 - see above

        sys.exit(ask_in_terminal(" ".join(question), **options))


@main.command(help=CHAT_HELP, short_help="Talk to a running service in the terminal.")
@_of_a_client
def chat(**options: Any) -> None:
    """Talk to a running service."""
    with _interruptible():
        from chat_sse.terminal.command import chat_in_terminal  # noqa: PLC0415 - see above

        sys.exit(chat_in_terminal(**options))
