"""Strict streaming loader: every tensor of a checkpoint is used, every parameter is filled."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.matrix import Rows, pieces
from upcurve.engine.model.quantization import Quantization
from upcurve.engine.model.sharding import Cut, Cuts, take, whole_shape
from upcurve.engine.model.stored import StoredTensor, stored_tensors
from upcurve.engine.model.weight_map import Target, weight_map
from upcurve.engine.model.weights import ModelWeights

logger = logging.getLogger(__name__)

PREFIXES = ("model.language_model.", "model.")
SKIPPED = ("mtp.", "model.visual.", "visual.")
"""Parts of the published checkpoints that a text engine without speculation has no use for."""
SCALES = ("_scale_inv", "_scale")
"""What a weight's name ends with in the name of its scale; either multiplies the FP8 values."""
PLAIN_TYPES = ("BF16", "F16", "F32", "F64")
FP8_TYPE = "F8_E4M3"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a checkpoint tensor goes."""

    target: Target
    """What this rank has of it."""
    cuts: Cuts
    """What that is of the whole."""
    held: bool = True
    """False where this rank has nothing of it: it has to fit all the same."""

    @property
    def shape(self) -> torch.Size:
        """Of the whole tensor."""
        return whole_shape(self.target.shape, self.cuts)


@dataclass(frozen=True, slots=True)
class _Fill:
    """One parameter, or a part of it, and the tensors that fill it."""

    place: _Place
    weight: StoredTensor
    scale: StoredTensor | None

    def check(self, quantization: Quantization | None) -> None:
        name, dtype = self.weight.name, self.weight.dtype
        if self.weight.shape != self.place.shape:
            raise EngineInputError(
                "model",
                f"tensor {name} is {list(self.weight.shape)}, "
                f"config.json says {list(self.place.shape)}",
                "use the config.json that belongs to the weights",
            )
        if dtype not in (*PLAIN_TYPES, FP8_TYPE):
            raise EngineInputError(
                "model",
                f"tensor {name} has the type {dtype}",
                f"give it as {', '.join(PLAIN_TYPES)} or {FP8_TYPE}",
            )
        if dtype == FP8_TYPE:
            self._check_fp8(quantization)
        elif self.scale is not None:
            raise EngineInputError(
                "model",
                f"tensor {self.scale.name} is a scale, but {name} is {dtype}, not FP8",
                "remove one of them",
            )

    def _check_fp8(self, quantization: Quantization | None) -> None:
        name, target, scale = self.weight.name, self.place.target, self.scale
        if not isinstance(target, Rows):
            raise EngineInputError(
                "model",
                f"tensor {name} is FP8, but is not quantised in this model",
                "use the published FP8 format, with its quantization_config",
            )
        if quantization is not None and quantization.keeps(name.removesuffix(".weight")):
            raise EngineInputError(
                "quantization_config.modules_to_not_convert",
                f"lists {name}, which is FP8",
                "correct config.json",
            )
        if scale is None:
            raise EngineInputError(
                "model", f"tensor {name} is FP8 and has no scale", f"add {name}{SCALES[0]}"
            )
        if scale.dtype not in (*PLAIN_TYPES, "F8_E8M0"):
            raise EngineInputError(
                "model",
                f"tensor {scale.name} has the type {scale.dtype}",
                f"give it as {', '.join(PLAIN_TYPES)}",
            )
        blocks = whole_shape(target.scale_shape, self._block_cuts())
        if scale.shape != blocks and scale.shape.numel() not in (1, blocks[:-2].numel()):
            raise EngineInputError(
                "model",
                f"tensor {scale.name} is {list(scale.shape)}, blocks of 128 x 128 need "
                f"{list(blocks)}",
                "give one scale for each block, or one for the tensor",
            )

    def run(self) -> None:
        if not self.place.held:
            return
        target, values = self.place.target, self.weight.read(self.place.cuts)
        if not isinstance(target, Rows):
            target.copy_(values)
        elif self.scale is None:
            for piece in pieces(values.shape):
                target[piece].fill(values[piece])
        else:
            scale = self._scale(self.scale, target)
            if not scale.isfinite().all():
                raise EngineInputError(
                    "model", f"tensor {self.scale.name} is not finite", "fetch it anew"
                )
            target.fill_quantized(values, scale)

    def _scale(self, stored: StoredTensor, target: Rows) -> torch.Tensor:
        cuts = self._block_cuts()
        shape = whole_shape(target.scale_shape, cuts)
        if stored.shape == shape:
            return stored.read(cuts).float()
        scale = stored.read().float()
        lead = shape[:-2] if scale.numel() > 1 else [1] * len(shape[:-2])
        return take(scale.reshape(*lead, 1, 1).expand(shape), cuts)

    def _block_cuts(self) -> Cuts:
        """Return the cuts of the scales: a block is of the last two dimensions."""
        matrix = len(self.place.shape) - 2
        return tuple(each.blocks() if each.dim >= matrix else each for each in self.place.cuts)


def load_weights(
    folder: Path, weights: ModelWeights, quantization: Quantization | None = None
) -> None:
    """Fill `weights` from the safetensors files of a checkpoint folder, one tensor at a time.

    Of each tensor no more is read than this rank has of it. Names, shapes and types of all tensors
    are checked before the first is read. Matrices that `weights` has in FP8 are taken as they are,
    with one scale for each block of 128 x 128 or one for the whole, or quantised one at a time
    where the checkpoint has them in another type.

    Args:
        folder: with `model.safetensors`, or with several such files and their index.
        weights: allocated, on any device.
        quantization: of an FP8 checkpoint.

    Raises:
        EngineInputError: a file is missing or corrupt, a tensor is unused or has another shape or
            type, a parameter stays unfilled, or a scale and its weight are not both there; each by
            name.
    """
    with ExitStack() as files:
        sharding = weights.sharding
        table = {
            name: _Place(target, sharding.cuts(name))
            for name, target in weight_map(weights).items()
        }
        fills = _plan(stored_tensors(folder, files), table)
        for fill in fills:
            fill.check(quantization)
        for fill in fills:
            fill.run()
    weights.prepare()
    converted = sum(isinstance(fill.place.target, Rows) and fill.scale is None for fill in fills)
    if converted:
        logger.info("quantised %d tensors to FP8 while loading", converted)


def _plan(stored: dict[str, StoredTensor], table: dict[str, _Place]) -> list[_Fill]:
    """Say which tensors fill what, in the order of the files; all names are checked."""
    found = {name: each for name, each in stored.items() if not name.startswith(SKIPPED)}
    if len(found) < len(stored):
        logger.info(
            "skipped %d tensors of the vision and multi-token-prediction parts",
            len(stored) - len(found),
        )
    scales = _scales(found)
    filled: dict[str, set[tuple[int, str]] | None] = {}
    fills = []
    for name, tensor in found.items():
        if not name.endswith(SCALES):
            fills.append(_Fill(_claim(name, table, filled), tensor, scales.get(name)))
    missing = [name for name in table if not _complete(table[name], filled.get(name, set()))]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise EngineInputError(
            "model", f"no tensor fills {missing[0]}{more}", "complete the checkpoint"
        )
    return fills


def _scales(stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return weight name -> its scale."""
    scales: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        if name.endswith(SCALES):
            weight = name.removesuffix("_inv").removesuffix("_scale")
            if weight not in stored:
                raise EngineInputError(
                    "model",
                    f"tensor {name} is the scale of {weight}, which is missing",
                    "complete the checkpoint",
                )
            if weight in scales:
                raise EngineInputError(
                    "model", f"tensor {weight} has two scales", f"remove {name} or the other"
                )
            scales[weight] = tensor
    return scales


def _claim(
    name: str, table: dict[str, _Place], filled: dict[str, set[tuple[int, str]] | None]
) -> _Place:
    """Return where a checkpoint tensor goes, and note that it is taken.

    `filled` holds None for a tensor filled whole, else the (expert, part) pairs filled singly.
    """
    if name == "lm_head.weight" and name not in table:
        # A head that is tied to the embedding is a copy of it: it must only fit.
        return replace(table["embed_tokens.weight"], held=False)
    short = next((name.removeprefix(each) for each in PREFIXES if name.startswith(each)), name)
    if short in table and short not in filled:
        filled[short] = None
        return table[short]
    found = _single_expert(short, table)
    if found is not None:
        fused, expert, part = found
        taken = filled.setdefault(fused, set())
        if taken is not None and (expert, part) not in taken:
            taken.add((expert, part))
            return _expert_place(table[fused], expert, part)
    if short in table or found is not None:
        raise EngineInputError("model", f"tensor {name} comes a second time", "remove one of them")
    raise EngineInputError("model", f"tensor {name} is not part of the model", "remove it")


def _complete(place: _Place, taken: set[tuple[int, str]] | None) -> bool:
    if taken is None:
        return True
    parts = {part for _, part in taken}
    return bool(parts) and len(taken) == place.shape[0] * (1 if parts == {"down"} else 2)


def _single_expert(name: str, table: dict[str, _Place]) -> tuple[str, int, str] | None:
    """Split the name of one expert's tensor, as in `layers.0.mlp.experts.7.up_proj.weight`.

    Returns:
        The name of the fused tensor in `table`, the expert, and "gate", "up" or "down"; None where
        the name is none of these.
    """
    head, found, tail = name.partition(".mlp.experts.")
    parts = tail.split(".")
    if not found or len(parts) != 3 or not parts[0].isdigit() or parts[2] != "weight":
        return None
    kinds = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj"}
    fused = f"{head}.mlp.experts.{kinds.get(parts[1], '')}"
    if fused not in table or int(parts[0]) >= table[fused].shape[0]:
        return None
    return fused, int(parts[0]), parts[1].removesuffix("_proj")


def _expert_place(fused: _Place, expert: int, part: str) -> _Place:
    """Return where one expert's "gate", "up" or "down" goes in a fused tensor."""
    target, experts = fused.target, range(fused.shape[0])
    inner: list[Cut] = []
    for cut in fused.cuts:
        if cut.dim == 0:
            experts = range(*cut.pieces[0])
        elif part == "down":
            inner.append(replace(cut, dim=cut.dim - 1))
        else:
            # Gate and up are halves, of which a rank has the same rows.
            inner.append(Cut(cut.dim - 1, cut.size // 2, cut.pieces[:1]))
    held = expert in experts
    index = experts.index(expert) if held else 0
    rows = target.shape[-2]
    start, stop = {"gate": (0, rows // 2), "up": (rows // 2, rows), "down": (0, rows)}[part]
    single: Target = (
        Rows(target.matrix[index], start, stop)
        if isinstance(target, Rows)
        else target[index, start:stop]
    )
    return _Place(single, tuple(inner), held)
