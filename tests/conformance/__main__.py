"""The command: `python -m tests.conformance --url http://127.0.0.1:8000 --upstream-port 9000`."""

from __future__ import annotations

import sys

import click

from tests.conformance.promises import Server, findings
from tests.support.upstream import ScriptedUpstream


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", required=True, help="Where the server is, without /ask.")
@click.option(
    "--upstream-port",
    type=click.IntRange(1, 65_535),
    required=True,
    help="Where its upstream shall listen: the server's OPENAI_BASE_URL is http://127.0.0.1:<port>/v1.",
)
def main(url: str, upstream_port: int) -> None:
    """Hold a server to the promises of the wire. Exit code 1 when one is broken."""
    with ScriptedUpstream(port=upstream_port) as upstream:
        found = list(findings(Server(url, upstream)))
    for one in found:
        click.echo(f"{'BROKEN' if one.error else 'kept  '}  {one.promise}{': ' * bool(one.error)}{one.error}")
    click.echo(f"{sum(not one.error for one in found)} of {len(found)} promises are kept")
    sys.exit(any(one.error for one in found))


if __name__ == "__main__":
    main()
