"""What a step launches, caught before it is compiled: one launch for every variant of a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

_compile = JITFunction.run


@dataclass(frozen=True, slots=True)
class Pointer:
    """What Triton asks of a tensor: what it holds, and whether its address is a multiple of 16."""

    dtype: torch.dtype
    address: int

    def data_ptr(self) -> int:
        """Return the address within memory that begins at a multiple of 16."""
        return self.address


@dataclass(slots=True)
class Variant:
    """A kernel with all that its machine code depends on."""

    function: JITFunction
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    """Of the launch, and arguments by name."""
    steps: list[str] = field(default_factory=list)
    """Which launch it."""
    grid: tuple[int, int, int] = (0, 0, 0)
    """The largest along each axis."""
    for_speed: bool = False
    """Some step that is not for checking numbers in float32 launches it."""

    @property
    def kernel(self) -> str:
        """File and name."""
        return f"{self.function.module.rpartition('.')[2]}.{self.function.__name__}"

    def compile(self) -> Any:
        """Compile for the chip that `as_if_on` says; return Triton's compiled kernel."""
        return _compile(self.function, *self.arguments, grid=self.grid, warmup=True, **self.options)


class Launches:
    """The variants that were launched, in order of their first launch."""

    def __init__(self) -> None:
        self.variants: dict[tuple[str, str], Variant] = {}
        self.step = ""
        """What is being run."""
        self.for_speed = True
        """Whether it is what is served, not what checks numbers in float32."""

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Keep launches instead of doing them; `as_if_on` says for which chip."""

        def run(function: JITFunction, *arguments: Any, grid: Any, **options: Any) -> None:
            self._keep(function, arguments, grid, options)

        with patch.object(JITFunction, "run", run):
            yield

    def _keep(
        self, function: JITFunction, arguments: tuple[Any, ...], grid: Any, options: dict[str, Any]
    ) -> None:
        options.pop("warmup", None)
        arguments = tuple(map(_without_memory, arguments))
        options = {name: _without_memory(value) for name, value in options.items()}
        *_, bind = function.device_caches[driver.active.get_current_device()]
        bound, specialization, rest = bind(*arguments, **options)
        key = f"{function.module}.{function.__name__}", f"{specialization} {rest}"
        variant = self.variants.setdefault(key, Variant(function, arguments, options))
        if self.step not in variant.steps:
            variant.steps.append(self.step)
        variant.for_speed |= self.for_speed
        grid = (*(grid(bound) if callable(grid) else grid), 1, 1)[:3]
        variant.grid = tuple(map(max, variant.grid, grid))


def _without_memory(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Pointer(value.dtype, int(value.storage_offset()) * value.element_size())
    return value
