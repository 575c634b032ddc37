"""How an engine is set up; nothing here imports what computes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.formats import LoadFormat, QuantizationFormat
from upcurve.engine.parallel.layout import Layout
from upcurve.engine.parallel.seat import address_of
from upcurve.engine.transfer.transport import Transport

_OF_A_RANK = ("device", "threads", "memory_share", "check_memory", "prefill")
"""Options that ranks of one engine may have each for itself."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The options of `upcurve serve` that are the engine's."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 on a GPU, fp32 on the CPU."""
    quantization: QuantizationFormat = "none"
    """fp8: quantise a bf16 checkpoint while it is loaded; none: as the checkpoint is."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    """auto: as the activations."""
    state_dtype: Literal["fp32", "bf16"] = "fp32"
    load_format: LoadFormat = "auto"
    off: str = ""
    """Switches to turn off: names, comma-separated, or "all"."""
    max_running_requests: int = 64
    context_length: int | None = None
    """Most tokens of prompt and output together; None: what the model was made for."""
    max_batch_tokens: int | None = None
    """Most tokens of a step; None: 8,192 on a GPU, which then computes longer than the host takes
    to launch a step, 2,048 on the CPU, and one for each running request."""
    max_kv_tokens: int | None = None
    """Most tokens that all requests hold together; None: what the memory has room for."""
    page_size: int = 16
    memory_share: float = 0.9
    """Of a GPU's memory, for weights, activations and caches together."""
    check_memory: bool = False
    """Prove after every step that no page or slot leaks or is shared."""
    threads: int | None = None
    """CPU threads; None: one less than the cores, which leaves one to HTTP."""
    seed: int = 0
    """Of dummy weights and of sampling without a seed."""
    role: Literal["server", "prefill", "decode"] = "server"
    """prefill: compute prompts for decode workers; decode: have prompts computed by others."""
    prefill: tuple[str, ...] = ()
    """HOST:PORT of prefill workers, for a decode worker."""
    prefill_below: int = 0
    """Shorter prompts are computed by the decode worker itself."""
    prefill_timeout: float = 10.0
    """Seconds without a sign of life, after which a prefill worker counts as gone."""
    transfer: Transport = "auto"
    """How caches move; auto: device copies within a host where they work, else TCP."""
    tp: int = 1
    ep: int = 1
    dp: int = 1

    @property
    def prefill_addresses(self) -> list[tuple[str, int]]:
        """Hosts and ports of the prefill workers of a decode worker.

        Raises:
            EngineInputError: one is no address, or there is none.
        """
        if self.role == "decode" and not self.prefill:
            raise EngineInputError(
                "prefill", "a decode worker needs some", "add --prefill HOST:PORT"
            )
        found = [address_of(each, "prefill") for each in self.prefill]
        if len(set(found)) < len(found):
            raise EngineInputError("prefill", "an address stands there twice", "give each once")
        return found

    @property
    def alike(self) -> dict[str, str]:
        """What all ranks of an engine have to be given alike, by the option's name."""
        names = [each.name for each in fields(self) if each.name not in _OF_A_RANK]
        return {name: str(getattr(self, name)) for name in names}

    @property
    def layout(self) -> Layout:
        """Over how many ranks the model is spread.

        Raises:
            EngineInputError: the sizes do not go together.
        """
        return Layout(self.tp, self.ep, self.dp)
