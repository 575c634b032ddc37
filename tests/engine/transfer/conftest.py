"""A decode rank that listens."""

from collections.abc import Iterator

import pytest

from tests.engine.transfer.engines import PAGE_SIZE, Ranks
from upcurve.engine.transfer.receiver import Receiver


@pytest.fixture
def target() -> Iterator[tuple[Ranks, Receiver]]:
    ranks = Ranks(1, seed=2)
    receiver = Receiver(ranks.caches[0], PAGE_SIZE, 0, "127.0.0.1", "copy")
    yield ranks, receiver
    receiver.close()
