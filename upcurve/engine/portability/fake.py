"""Tensors of a GPU that is not there: shapes and addresses without memory, and without numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.bias import CausalBias
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
WITHOUT_GUARD: dict[Any, Callable[..., Any]] = {
    torch.Tensor.copy_: aten.copy_,
    torch.Tensor.__invert__: aten.bitwise_not,
}
"""Methods that look for a GPU, and what they are without."""


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Let tensors be made on `cuda`, whatever torch was built for; each number read is 0."""
    # A mask that torch makes a class of its own of cannot be fake.
    mask = patch.object(CausalBias, "__new__", _mask)
    with mask, FakeTensorMode(), _WithoutGuards():
        yield


def _mask(kind: type, variant: Any, queries: int, keys: int) -> torch.Tensor:  # noqa: ARG001
    return torch.empty(queries, keys, dtype=torch.bool, device="cuda")


class _WithoutGuards(TorchFunctionMode):
    """Goes around the methods that look for a GPU before they dispatch, in a torch without any."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.__getitem__:
            return _item(*args)
        if func is torch.Tensor.__setitem__:
            target, index, value = args
            aten.copy_(_item(target, index), value)
            return None
        if func is torch.Tensor.item:
            return 0
        if func is torch.Tensor.data_ptr:
            return _address(args[0])
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func is F.scaled_dot_product_attention:
            # Torch's own kernels: what comes out is as what goes in.
            return torch.empty_like(args[0])
        return WITHOUT_GUARD.get(func, func)(*args, **(kwargs or {}))


def _address(tensor: torch.Tensor) -> int:
    """Return an address: memory of each tensor begins at a multiple of 2^40."""
    begin: int = tensor.untyped_storage()._cdata << 40
    return begin + int(tensor.storage_offset()) * tensor.element_size()


def _item(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    """Return tensor[index]."""
    index = index if isinstance(index, tuple) else (index,)
    kinds = [type(each) for each in index]
    if type(...) in kinds:
        place = kinds.index(type(...))
        rest = tensor.dim() - (len(index) - 1 - kinds.count(type(None)))
        index = (*index[:place], *[slice(None)] * rest, *index[place + 1 :])
    axis = 0
    tensors: list[torch.Tensor | None] = []
    for each in index:
        if isinstance(each, int):
            tensor = tensor.select(axis, each)
            continue
        if isinstance(each, slice):
            tensor = aten.slice(tensor, axis, each.start, each.stop, each.step or 1)
        elif each is None:
            tensor = tensor.unsqueeze(axis)
        else:
            tensors += [None] * (axis - len(tensors)) + [each]
        axis += 1
    return aten.index(tensor, tensors) if tensors else tensor
