"""Triton's interpreter, which TRITON_INTERPRET in tests/conftest.py turns on, mended."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from upcurve.engine.platform import HAS_TRITON, INTERPRETED

if HAS_TRITON and INTERPRETED:
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor
    TYPES = {
        "fp8e4nv": (torch.uint8, torch.float8_e4m3fn),
        "fp16": (torch.float16, torch.float16),
        "bf16": (torch.uint16, torch.bfloat16),
        "fp32": (torch.float32, torch.float32),
    }
    """By Triton's names: what NumPy holds, and what it means."""

    def patch_tensor_with_index(tensor, scope) -> None:
        """A loop's bounds may be loaded: NumPy 2.4 no longer makes an int of an array of one."""
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    def convert_float(values, source, target, rounding):
        """Round to the nearest, as GPUs do: the interpreter cuts, and loses small and carried."""
        (_, meant), (held, wanted) = TYPES[str(source)], TYPES[str(target)]
        converted = torch.from_numpy(values.copy()).view(meant).to(wanted).view(held)
        return converted.numpy().reshape(values.shape)

    interpreter._patch_lang_tensor = patch_tensor_with_index
    interpreter._convert_float = convert_float


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """Infinities and NaN are numbers to a GPU: where NumPy stands for one it does not warn."""
    with np.errstate(all="ignore"):
        yield
