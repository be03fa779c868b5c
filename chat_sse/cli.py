"""The command line: `chat-sse` serves, `chat-sse ask "…"` asks.

A command imports its packages when it runs, so that asking does not load the server's, nor serving the
terminal's.
"""

import sys
from pathlib import Path

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
@click.version_option(__version__, prog_name="chat-sse")
@click.pass_context
def main(context: click.Context, /, **given: str | int | Path | None) -> None:
    """Serve /ask. Everything else is set in the environment or in .env: see .env.example."""
    if given["uds"] is not None and (given["host"], given["port"]) != (None, None):
        raise click.UsageError("--uds is instead of --host and --port")
    if context.invoked_subcommand is None:
        from chat_sse.server.serve import serve  # noqa: PLC0415 - see above

        serve(given)
    elif any(value is not None for value in given.values()):
        raise click.UsageError("--host, --port, --uds, --workers and --root-path are for serving")


@main.command(help=ASK_HELP, short_help="Ask a running service from the terminal.")
@click.argument("question", nargs=-1)
@click.option(
    "--url", envvar="CHAT_SSE_URL", default="http://127.0.0.1:8000", show_default=True, show_envvar=True
)
@click.option("--key", envvar="CHAT_SSE_KEY", help="A key or token; sent as a bearer.", show_envvar=True)
@click.option("--model", help="One of those that the service offers.")
@click.option("--chat", metavar="NAME", help="Continue this conversation, or begin it.")
def ask(question: tuple[str, ...], url: str, key: str | None, model: str | None, chat: str | None) -> None:
    """Ask a running service."""
    from chat_sse.terminal.command import ask_in_terminal  # noqa: PLC0415 - see above

    sys.exit(ask_in_terminal(" ".join(question), url=url, key=key, model=model, chat=chat))
