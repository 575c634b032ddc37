"""The named optimisations of the engine: on by default, each with a reference to turn to."""

from __future__ import annotations

from dataclasses import dataclass, fields

from upcurve.engine.errors import EngineInputError


@dataclass(frozen=True, slots=True)
class Switches:
    """Which optimisations are on."""

    grouped_experts: bool = True
    """Two grouped products over tokens by expert; off: a loop over experts with masks."""
    shared_expert_fusion: bool = True
    """The shared expert as expert E of the routed ones; off: a multilayer perceptron of its own."""
    fused_topk: bool = True
    """Top-k, softmax of the chosen and the shared gate in one launch; off: one by one."""
    fused_norm: bool = True
    """Sum of the experts, residual add, RMSNorm and FP8 rows in one launch; off: one by one."""
    fused_all_reduce: bool = True
    """Ranks' sums added where the residual and the norm are; off: an all-reduce before them."""
    peer_memory: bool = True
    """Small sums written into the other ranks' memory by the launch that adds them (NVIDIA GPUs of
    one host); off: gathered before it."""
    fused_projections: bool = True
    """One matrix product for all input projections of a mixer; off: one each."""
    fused_query_key: bool = True
    """Norm, rotation and store of queries and keys in one launch (on a GPU); off: one by one."""
    fused_recurrence: bool = True
    """Gated DeltaNet in one launch a step, few a prompt (on a GPU); off: torch, step by step."""
    paged_attention: bool = True
    """Queries attend to pages where they lie (on a GPU); off: pages are gathered first."""
    cuda_graphs: bool = True
    """Decode steps as captured graphs (HIP graphs on AMD); off: one launch for each kernel."""
    host_overlap: bool = True
    """The host launches a step before it looks at the last one's tokens; off: one by one."""

    @classmethod
    def names(cls) -> list[str]:
        """Return the names that `--off` takes."""
        return [field.name for field in fields(cls)]

    @classmethod
    def without(cls, off: str) -> Switches:
        """Return all switches but those named in `off`: comma-separated names, "all" or "".

        Raises:
            EngineInputError: a name is not a switch.
        """
        chosen = [name.strip() for name in off.split(",") if name.strip()]
        known = cls.names()
        if chosen == ["all"]:
            chosen = known
        for name in chosen:
            if name not in known:
                raise EngineInputError(
                    "off", f"{name!r} is not a switch", f"give all or some of {', '.join(known)}"
                )
        return cls(**dict.fromkeys(chosen, False))

    def off(self) -> list[str]:
        """Return the names of the switches that are off."""
        return [name for name in self.names() if not getattr(self, name)]
