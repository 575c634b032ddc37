"""The tensors that a checkpoint folder holds: their headers first, their content one at a time."""

from __future__ import annotations

import itertools
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.sharding import Cuts


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a safetensors file that is open."""

    name: str
    file: Path
    reader: Any
    shape: torch.Size
    dtype: str
    """As the safetensors format names it: BF16, F32, F8_E4M3."""

    def read(self, cuts: Cuts = ()) -> torch.Tensor:
        """Return the tensor, or what `cuts` leave of it, on the CPU; nothing else is read.

        A whole tensor is the mapped file itself, until it is copied.
        """
        try:
            tensor: torch.Tensor = self._pieces(cuts) if cuts else self.reader.get_tensor(self.name)
        except SafetensorError as error:
            raise _corrupt(self.file, error) from error
        return tensor

    def _pieces(self, cuts: Cuts) -> torch.Tensor:
        stored = self.reader.get_slice(self.name)
        pieces: list[torch.Tensor] = []
        for chosen in itertools.product(*(cut.pieces for cut in cuts)):
            where = [slice(None)] * len(self.shape)
            for cut, (begin, end) in zip(cuts, chosen, strict=True):
                where[cut.dim] = slice(begin, end)
            pieces.append(stored[tuple(where)])
        if len(pieces) == 1:
            return pieces[0]
        # Of one tensor only one dimension is cut into several.
        (dim,) = (cut.dim for cut in cuts if len(cut.pieces) > 1)
        return torch.cat(pieces, dim)


def stored_tensors(folder: Path, files: ExitStack) -> dict[str, StoredTensor]:
    """Open the safetensors files of a checkpoint, single or sharded, and read their headers.

    Args:
        folder: of the checkpoint.
        files: closes them.

    Returns:
        Tensor name -> tensor, in the order in which they lie in the files.

    Raises:
        EngineInputError: a file is missing or corrupt, or two have a tensor of the same name.
    """
    found: dict[str, StoredTensor] = {}
    for file in checkpoint_files(folder):
        try:
            reader = files.enter_context(safe_open(file, framework="pt"))
            for name in reader.offset_keys():
                if name in found:
                    raise EngineInputError(
                        "model", f"tensor {name} comes a second time", "remove one of them"
                    )
                header = reader.get_slice(name)
                shape = torch.Size(header.get_shape())
                found[name] = StoredTensor(name, file, reader, shape, header.get_dtype())
        except SafetensorError as error:
            raise _corrupt(file, error) from error
    return found


def _corrupt(file: Path, error: SafetensorError) -> EngineInputError:
    return EngineInputError("model", f"{file.name} is corrupt: {error}", "fetch it anew")


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, single or sharded.

    Raises:
        EngineInputError: there are none, or the index names one that is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            files = [folder / name for name in sorted(names)]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise EngineInputError(
                "model", f"{index.name} is not a checkpoint index: {error}", "replace it"
            ) from error
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise EngineInputError(
                "model", f"{folder} has no {file.name}", "complete it, or use --load-format dummy"
            )
    return files
