"""Some of the engine's kernels on the CPU, under Triton's interpreter, in place of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

MODULES = {
    "routing": "upcurve.engine.kernels.routing",
    "norms": "upcurve.engine.kernels.rms_norm",
    "attention": "upcurve.engine.model.model",
    "delta rule": "upcurve.engine.model.model",
}


@contextmanager
def interpreted(which: str) -> Iterator[None]:
    """Let models that are built within the block take one kind of kernels.

    Args:
        which: a key of `MODULES`; all of them together would take a minute.
    """
    # By name: a bug that is planted puts another module in the place of the first.
    module = import_module(MODULES[which])
    replaced: dict[str, Any] = {
        "routing": ("runs_kernels", lambda _device: True),
        "norms": ("runs_kernels", lambda _device: True),
        "attention": ("Attention", _with(getattr(module, "Attention", None), kernels=True)),
        "delta rule": ("DeltaRule", _with(getattr(module, "DeltaRule", None), fused=True)),
    }
    with patch.object(module, *replaced[which]):
        yield


def _with(kind: Any, **given: bool) -> Callable[..., Any]:
    return lambda shapes, *rest, **_chosen: kind(shapes, *rest, **given)
