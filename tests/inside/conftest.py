"""Tests from the inside, room by room as the package has them: no processes, no sockets, no waiting.

Every asynchronous test here runs in virtual time.
"""

import pytest

from tests.support.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, type[VirtualTimeLoop]]:
    """Run the tests of this folder on the loop that never waits."""
    return {"virtual": VirtualTimeLoop}
