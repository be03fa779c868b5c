"""Which client reads which format, and how: measured by the tests that run the clients, printed at the end.

A pytest plugin. The table is Markdown, as it stands in the README.
"""

import pytest

COLUMNS = ("a whole answer", "cut by the token limit", "upstream fails midway", "stopped")

CLIENT_TABLE = pytest.StashKey["ClientTable"]()


class ClientTable:
    """What each client made of each kind of ending."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, str]] = {}

    def enter(self, client: str, code: str, column: str, outcome: str) -> None:
        """Note an outcome. `client`: its name and version; `code`: what its user writes."""
        assert column in COLUMNS
        self._rows.setdefault((client, code), {})[column] = outcome

    def lines(self) -> list[str]:
        """Give the table; nothing where no client ran."""
        if not self._rows:
            return []
        head = ["client", "what to write", *COLUMNS]
        rows = [
            [client, f"`{code}`", *(outcomes.get(column, "not run") for column in COLUMNS)]
            for (client, code), outcomes in self._rows.items()
        ]
        return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CLIENT_TABLE] = ClientTable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[CLIENT_TABLE].lines():
        terminalreporter.section("clients of the formats")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def client_table(pytestconfig: pytest.Config) -> ClientTable:
    """Where tests of clients enter their outcomes."""
    return pytestconfig.stash[CLIENT_TABLE]
