"""Kernels under Triton's interpreter."""

from collections.abc import Iterator

import pytest
import torch

from tests.engine.interpreter import silent

__all__ = ["silent"]


@pytest.fixture(scope="module")
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)
