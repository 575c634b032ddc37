"""What two engines have to have in common before one writes into the other's caches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.memory.caches import CacheShapes, CacheTypes

VERSION = 1
"""Of what the two say to each other; another is refused."""

_MENDS = {
    "protocol version": "run the same release on both",
    "weights": "serve the same checkpoint on both",
    "page size": "give both the same --page-size",
    "dtype of keys and values": "give both the same --kv-cache-dtype and --dtype",
    "dtype of recurrent states": "give both the same --state-dtype",
    "dtype of activations": "give both the same --dtype",
}


class TransferShapes(CacheShapes, Protocol):
    """The sizes of a whole model that decide which rank has what of its memory."""

    @property
    def linear_num_key_heads(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Description:
    """One engine's caches over all its ranks. Only `tp` may differ between two that talk."""

    version: int
    model: dict[str, Any]
    """What a model is known by, but its weights: any names and JSON values."""
    weights: str
    """Fingerprint of them."""
    page_size: int
    key_value: str
    """A torch dtype's name, as the next two."""
    recurrent: str
    activation: str
    attention_layers: tuple[int, ...]
    linear_layers: tuple[int, ...]
    kv_heads: int
    """Heads are those of the whole model."""
    head_dim: int
    key_heads: int
    value_heads: int
    key_head_dim: int
    value_head_dim: int
    kernel: int
    tp: int

    @classmethod
    def of(
        cls,
        shapes: TransferShapes,
        types: CacheTypes,
        *,
        page_size: int,
        tp: int,
        model: Mapping[str, Any],
        weights: str,
    ) -> Description:
        """Describe an engine.

        Args:
            shapes: of the whole model.
            types: of its caches.
            page_size: tokens of a page.
            tp: ranks that share the heads.
            model: what else has to be equal, by name.
            weights: their fingerprint.
        """
        return cls(
            VERSION,
            dict(model),
            weights,
            page_size,
            _name(types.key_value),
            _name(types.recurrent),
            _name(types.activation),
            tuple(shapes.attention_layers),
            tuple(shapes.linear_layers),
            shapes.num_key_value_heads,
            shapes.head_dim,
            shapes.linear_num_key_heads,
            shapes.linear_num_value_heads,
            shapes.linear_key_head_dim,
            shapes.linear_value_head_dim,
            shapes.linear_conv_kernel_dim,
            tp,
        )

    def encode(self) -> bytes:
        """Return it for the other side."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Description:
        """Read the other side's.

        Raises:
            EngineInputError: it is of another version, or no description.
        """
        try:
            version = _decode_version(data).version
            if version == VERSION:
                return _decode(data)
        except msgspec.DecodeError as error:
            raise EngineInputError(
                "handshake", f"no description of an engine: {error}", "check the address"
            ) from error
        raise _differs("protocol version", VERSION, version)


@dataclass(frozen=True, slots=True)
class _Version:
    version: int


# Here: where two threads look at a type for the first time at once, msgspec ends the process.
_decode = msgspec.json.Decoder(Description).decode
_decode_version = msgspec.json.Decoder(_Version).decode


def agree(ours: Description, theirs: Description) -> None:
    """Check that two engines keep a request in the same bytes.

    Raises:
        EngineInputError: naming the first field in which they differ, both values and the mend.
    """
    for (name, here), (_, there) in zip(_fields(ours, theirs), _fields(theirs, ours), strict=True):
        if here != there:
            raise _differs(name, here, there)


def _fields(one: Description, other: Description) -> Iterator[tuple[str, Any]]:
    """Yield what has to be equal, by the names that users know."""
    yield "protocol version", one.version
    for name in sorted({*one.model, *other.model}):
        # Through JSON a tuple comes back as a list.
        value = one.model.get(name)
        yield name, list(value) if isinstance(value, tuple) else value
    yield "attention layers", one.attention_layers
    yield "linear layers", one.linear_layers
    yield "key-value heads", one.kv_heads
    yield "head dimension", one.head_dim
    yield "linear key heads", one.key_heads
    yield "linear value heads", one.value_heads
    yield "linear key head dimension", one.key_head_dim
    yield "linear value head dimension", one.value_head_dim
    yield "convolution kernel", one.kernel
    yield "weights", one.weights
    yield "page size", one.page_size
    yield "dtype of keys and values", one.key_value
    yield "dtype of recurrent states", one.recurrent
    yield "dtype of activations", one.activation


def _differs(name: str, here: Any, there: Any) -> EngineInputError:
    mend = _MENDS.get(name, "serve the same model on both")
    return EngineInputError(name, f"{here} here, {there} at the other worker", mend)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
