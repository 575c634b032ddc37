"""How an engine is spread over GPUs, as the record of a point has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upcurve.errors import InputError

LAYOUT = ("tp", "ep", "dp", "gpus", "prefill_gpus", "decode_gpus")
"""Columns of a point that say its layout."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of parallelism, and the GPUs that throughput is divided by."""

    tp: int
    """Tensor-parallel size."""
    ep: int
    """Expert-parallel size."""
    dp: int
    """Data-parallel size: replicas of `tp` GPUs each."""
    gpus: int
    """All of them."""
    prefill_gpus: int | None = None
    """Those that only prefill, where prefill and decode are apart."""
    decode_gpus: int | None = None
    """Those that only decode."""

    def __post_init__(self) -> None:
        """Check that the sizes go together.

        Raises:
            InputError: they do not.
        """
        prefill, decode = self.prefill_gpus, self.decode_gpus
        if (prefill is None) != (decode is None):
            problem = "those of prefill and of decode are there one without the other"
            raise InputError("gpus", problem, "give both, or neither")
        if prefill is not None and decode is not None and prefill + decode != self.gpus:
            problem = f"{prefill} of prefill and {decode} of decode are not {self.gpus}"
            raise InputError("gpus", problem, "correct one")
        if max(self.tp * self.dp, self.ep) > self.gpus:
            sizes = f"tp {self.tp}, ep {self.ep}, dp {self.dp}"
            raise InputError("gpus", f"{sizes} does not fit on {self.gpus}", "correct one")

    @property
    def columns(self) -> dict[str, Any]:
        """What a point's columns say of it."""
        return {name: getattr(self, name) for name in LAYOUT}

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """tp, ep, dp, GPUs and those of them that only prefill, 0 where all do both.

        With the concurrency, what tells points of one recipe apart.
        """
        return self.tp, self.ep, self.dp, self.gpus, self.prefill_gpus or 0


def gpus_of(
    *, tp: int, dp: int, prefill_gpus: int | None = None, decode_gpus: int | None = None
) -> int:
    """Return the GPUs of a layout: of both parts where prefill and decode are apart, else all."""
    if prefill_gpus is not None and decode_gpus is not None:
        return prefill_gpus + decode_gpus
    return tp * dp
