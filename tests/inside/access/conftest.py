"""Here the loop has a network: the keys of tokens come over it."""

from tests.inside.upstreams.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
