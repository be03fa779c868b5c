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
