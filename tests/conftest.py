"""Settings that every test shares."""

import os
import signal

# In the background of a script Ctrl-C is ignored, and would be by what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Two OpenMP threads on shared cores can be 100 times slower than one: they spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when Triton is first imported: its kernels then run on CPU tensors.
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, not wrong; examples are the same on every run.
settings.register_profile(
    "upcurve",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("upcurve")

LONGEST = (
    "tests/engine/portability/test_proof.py",
    "tests/cli/test_demo.py",
    "tests/cli/test_bisect.py",
    "tests/cli/test_ablate.py",
    "tests/cli/test_serve_layouts.py",
    "tests/engine/portability/test_ahead.py",
)
"""Files that would leave the other worker with nothing to do, were they the last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin first."""
    place = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))
