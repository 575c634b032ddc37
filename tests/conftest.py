"""Settings that every test shares."""

import os

# Two OpenMP threads on shared cores can be 100 times slower than one: they spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when Triton is first imported: its kernels then run on CPU tensors.
os.environ.setdefault("TRITON_INTERPRET", "1")

from hypothesis import settings

# A busy machine is slow, not wrong; examples are the same on every run.
settings.register_profile("upcurve", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("upcurve")
