"""Here the loop has a network of its own as well."""

import pytest

from tests.support.network import NetworkLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, type[NetworkLoop]]:
    """Run the tests of this folder on the loop with a network."""
    return {"network": NetworkLoop}
