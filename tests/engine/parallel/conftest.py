from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.quick_processes import quick_processes
from upcurve.engine.fidelity.pool import RankPool
from upcurve.engine.parallel.layout import Layout


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    """Eight ranks: started once, asked many times."""
    with pytest.MonkeyPatch.context() as patch, quick_processes(patch):
        pool = RankPool(Layout(8), gpu=False)
    with pool:
        yield pool
