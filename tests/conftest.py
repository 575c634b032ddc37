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
