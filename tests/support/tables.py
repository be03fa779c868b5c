"""What the tests of clients measured, as Markdown tables printed when the suite ends. A pytest plugin.

An entry travels with its test's report, so it does not matter which process ran the test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

RecordProperty = Callable[[str, object], None]


class _Table(NamedTuple):
    name: str
    heads: tuple[str, ...]  # of what names a row
    columns: tuple[str, ...]


PAID = _Table(
    "paid calls",
    ("paid calls",),
    ("whole answer", "reset in the middle", "reset before the first event", "reload / re-ask"),
)
WHOLE, LENGTH, FAULT, STOP = "a whole answer", "cut by the token limit", "upstream fails midway", "stopped"
OUTCOMES = _Table("clients of the formats", ("client", "what to write"), (WHOLE, LENGTH, FAULT, STOP))


class Matrix:
    """What each client paid."""

    def __init__(self, record_property: RecordProperty) -> None:
        self._record_property = record_property

    def record(self, client: str, column: str, paid_calls: int) -> None:
        """Enter what was measured. A client's name ends with its version."""
        assert column in PAID.columns
        self._record_property(PAID.name, ((client,), column, str(paid_calls)))


class ClientTable:
    """What each client made of each kind of ending."""

    def __init__(self, record_property: RecordProperty) -> None:
        self._record_property = record_property

    def enter(self, client: str, code: str, column: str, outcome: str) -> None:
        """Note an outcome. `client`: its name and version; `code`: what its user writes."""
        assert column in OUTCOMES.columns
        self._record_property(OUTCOMES.name, ((client, f"`{code}`"), column, outcome))


@pytest.fixture
def matrix(record_property: RecordProperty) -> Matrix:
    """Where tests of clients enter what was paid."""
    return Matrix(record_property)


@pytest.fixture
def client_table(record_property: RecordProperty) -> ClientTable:
    """Where tests of clients enter their outcomes."""
    return ClientTable(record_property)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for table in (PAID, OUTCOMES):
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        for row, column, cell in _entries(terminalreporter, table):
            rows.setdefault(tuple(row), {})[column] = cell
        if not rows:
            continue
        terminalreporter.section(table.name)
        lines = [
            (*row, *(cells.get(column, "not run") for column in table.columns)) for row, cells in rows.items()
        ]
        heads = (*table.heads, *table.columns)
        for line in (heads, ["---"] * len(heads), *sorted(lines)):
            terminalreporter.write_line(f"| {' | '.join(line)} |")


def _entries(terminalreporter: pytest.TerminalReporter, table: _Table) -> list[Any]:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    return [entry for report in reports for name, entry in report.user_properties if name == table.name]
