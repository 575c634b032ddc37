"""What differs between the machines that the engine runs on: the only file that asks.

NVIDIA and AMD GPUs are both `torch.device("cuda")`, with streams, events and graphs by the same
names (torch's HIP build maps them), and their kernels are the same Triton source. What is left is
here.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

HAS_TRITON = find_spec("triton") is not None
"""Every GPU build of torch brings Triton; CPU builds do not."""

if TYPE_CHECKING:
    triton: Any
    tl: Any
elif HAS_TRITON:
    import triton
    import triton.language as tl
else:

    class _Missing:
        """Stands where Triton is missing: a kernel can be defined, not launched."""

        def jit(self, kernel: Any = None, **_options: Any) -> Any:
            return self.jit if kernel is None else kernel

        def constexpr(self, value: Any) -> Any:
            return value

    triton = tl = _Missing()

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Kernels run in Python on CPU tensors: slow, for tests."""


def take_gpu(index: int) -> int:
    """Leave this process one of the GPUs that it sees, before it uses any; return how many it saw.

    Where there are fewer, several processes get the same one. The only one needs no choice: then
    nothing is changed.
    """
    count = torch.cuda.device_count()
    if count > 1:
        # Either name does on AMD; NVIDIA knows the second.
        names = ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
        name = next((each for each in names if os.environ.get(each)), names[1])
        seen = os.environ.get(name)
        numbers = seen.split(",") if seen else [str(each) for each in range(count)]
        os.environ[name] = numbers[index % count]
    return count


def runs_kernels(device: torch.device) -> bool:
    """Return whether Triton kernels are the way to compute on a device."""
    return HAS_TRITON and device.type == "cuda"


def is_amd() -> bool:
    """Return whether this torch drives AMD GPUs."""
    return torch.version.hip is not None


def shares_memory(device: torch.device) -> bool:
    """Return whether a kernel may read what another GPU writes meanwhile.

    AMD's GPUs need memory that is allocated for it, which torch does not give.
    """
    return runs_kernels(device) and not is_amd()


def compute_capability(device: torch.device) -> tuple[int, int]:
    """Return that of an NVIDIA GPU; (0, 0) of everything else."""
    if device.type != "cuda" or is_amd():
        return 0, 0
    return torch.cuda.get_device_capability(device)


def multiprocessors(device: torch.device) -> int:
    """Return how many programs run side by side at least (SMs, CUs); 1 on the CPU."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def overlapping(device: torch.device) -> dict[str, bool]:
    """Return the launch options of a kernel that calls `wait_for_inputs` and may start early.

    From Hopper on, NVIDIA GPUs can launch a kernel while the one before it ends (programmatic
    dependent launch, CUDA C++ programming guide); everything else has no such option.
    """
    if compute_capability(device) >= (9, 0):
        return {"early": True, "launch_pdl": True}
    return {"early": False}


@triton.jit  # type: ignore[untyped-decorator]
def wait_for_inputs(early: tl.constexpr) -> None:
    """Let the next kernel be launched, and wait until what the kernels before wrote can be read."""
    if early:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
