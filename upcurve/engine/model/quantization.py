"""The format of an FP8 checkpoint, read from config.json and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upcurve.engine.errors import EngineInputError

BLOCK_SIZE = [128, 128]


@dataclass(frozen=True, slots=True)
class Quantization:
    """What the `quantization_config` of an FP8 checkpoint says."""

    modules_to_not_convert: tuple[str, ...]
    """Names, or the beginnings or ends of names, of modules that are not FP8."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Quantization:
        """Check a `quantization_config`.

        Raises:
            EngineInputError: it is not FP8 in blocks of 128 x 128 or with one scale per tensor.
        """
        for name, default, supported in (
            ("quant_method", None, ["fp8"]),
            ("fmt", "e4m3", ["e4m3"]),
            ("activation_scheme", "dynamic", ["dynamic"]),
            ("weight_block_size", None, [None, BLOCK_SIZE]),
        ):
            value = config.get(name, default)
            if value not in supported:
                raise EngineInputError(
                    f"quantization_config.{name}",
                    f"{value!r} is not supported",
                    f"give a checkpoint with {supported[-1]!r}, or a bf16 one",
                )
        kept = config.get("modules_to_not_convert") or []
        if not isinstance(kept, list) or any(not isinstance(each, str) for each in kept):
            raise EngineInputError(
                "quantization_config.modules_to_not_convert",
                "not a list of names",
                "correct config.json",
            )
        return cls(tuple(kept))

    def keeps(self, module: str) -> bool:
        """Return whether a module is listed in `modules_to_not_convert`."""
        return any(
            f".{module}.".startswith(f".{each}.") or f".{module}.".endswith(f".{each}.")
            for each in self.modules_to_not_convert
        )
