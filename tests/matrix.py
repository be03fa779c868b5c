"""What each client paid: measured by the tests, printed when the suite ends."""

from collections.abc import Iterator

COLUMNS = ("whole answer", "reset in the middle", "reset before the first event", "reload / re-ask")


class Matrix:
    """Paid calls by client and situation."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, int]] = {}

    def record(self, client: str, column: str, paid_calls: int) -> None:
        """Enter what was measured. A client's name ends with its version."""
        if column not in COLUMNS:
            raise ValueError(f"no column {column!r}")
        self._rows.setdefault(client, {})[column] = paid_calls

    def lines(self) -> Iterator[str]:
        """Write a table; a dash is what was not run."""
        if not self._rows:
            return
        width = max(map(len, self._rows))
        yield " | ".join([f"{'paid calls':{width}}", *COLUMNS])
        for client, paid in sorted(self._rows.items()):
            cells = (f"{paid.get(column, '-'):>{len(column)}}" for column in COLUMNS)
            yield " | ".join([f"{client:{width}}", *cells])
