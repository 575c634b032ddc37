"""How the caches of a decode rank can be reached: what its receiver tells prefill ranks."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import torch

from upcurve.engine.parallel.mapping import Export, open_export
from upcurve.engine.transfer.reach import Reach
from upcurve.engine.transfer.views import CacheViews


@dataclass(frozen=True, slots=True)
class Exports:
    """A decode rank's memory, for processes of its host."""

    host: str
    """`host_identity` of the process."""
    kv: Export
    recurrent: Export
    convolution: Export
    proof: Export
    """Bytes that tell whether a mapping is what it is taken for."""
    proof_bytes: bytes

    def open(self) -> CacheViews:
        """Map the caches.

        Raises:
            OSError: the memory cannot be mapped, or is not what it is said to be.
            RuntimeError: likewise.
        """
        found = open_export(self.proof)
        if found.cpu().numpy().tobytes() != self.proof_bytes:
            raise OSError("the memory that was mapped is another")
        return CacheViews.of(*map(open_export, (self.kv, self.recurrent, self.convolution)))


@dataclass(frozen=True, slots=True)
class Offer:
    """One decode rank's."""

    host: str
    """Address on which it listens."""
    port: int
    rank: int
    device: str
    """Type of its device."""
    total_rows: int
    """Tokens that its pages hold, with the padding page."""
    slots: int
    exports: Exports | None = None
    reach: Reach | None = None

    def encode(self) -> bytes:
        """Return it for a prefill rank."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Offer:
        """Read a decode rank's.

        Raises:
            OSError: it is none.
        """
        try:
            return _decode(data)
        except msgspec.DecodeError as error:
            raise OSError(f"no offer of a decode rank: {error}") from error


# Here: where two threads look at a type for the first time at once, msgspec ends the process.
_decode = msgspec.msgpack.Decoder(Offer).decode


def proof_of(device: torch.device, data: bytes) -> torch.Tensor:
    """Return the bytes in memory of their own on a device, once they are there."""
    found = torch.frombuffer(bytearray(data), dtype=torch.uint8).clone().to(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return found
