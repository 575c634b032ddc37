"""Divergence of a model's builds, one set of switches each, and what of it may be rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from upcurve.engine.build import DTYPES, compile_ahead
from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.fidelity.divergence import Divergence, diverge, perplexity
from upcurve.engine.fidelity.forced import ForcedEngine, Passage, context_of
from upcurve.engine.fidelity.reference import alone, in_float32, plainly
from upcurve.engine.model.formats import LoadFormat, QuantizationFormat
from upcurve.engine.model.model import Model, load_model
from upcurve.engine.switches import Switches

ON_A_GPU = ("fused_query_key", "fused_recurrence", "paged_attention", "cuda_graphs", "host_overlap")
"""Switches that change nothing on a CPU."""
AMONG_RANKS = ("fused_all_reduce", "peer_memory")
"""Switches that change nothing where one process has the whole model, as here."""
FLOOR = 1e-8
"""Nats that float32 may cost: other orders of its sums cost 1e-10 at most (docs/divergence.md)."""
ROUNDING = 1.5
"""Times what plain torch loses in the same format, a build may lose."""
DISAGREEMENT = 0.01
"""Of the tokens, so many more than in plain torch may have another most likely one."""
ERRORS = 3.0
"""Standard errors of plain torch's figures, beside both: what few tokens decide is chance."""


@dataclass(frozen=True, slots=True)
class Format:
    """What the numbers of a model are kept in."""

    dtype: Literal["bf16", "fp32"]
    """Of activations and plain matrices."""
    quantization: QuantizationFormat = "none"
    load_format: LoadFormat = "auto"
    seed: int = 0
    """Of dummy weights."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How the text goes through the engine, and what its memory is kept in.

    Few tokens and requests, so that prompts come in chunks beside decodes, and slots are used again
    and again.
    """

    step_tokens: int = 48
    """Most tokens of a step."""
    requests: int = 6
    """That run at once."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    state_dtype: Literal["fp32", "bf16"] = "fp32"

    @classmethod
    def sized(
        cls,
        passages: int,
        *,
        gpu: bool,
        step_tokens: int | None = None,
        requests: int | None = None,
        **types: Any,
    ) -> Steps:
        """Choose the sizes that are not given.

        Args:
            passages: of the text; a third at most run at once, so that slots are used again.
            gpu: whether one computes: then steps are larger, because it is their number that costs.
            step_tokens: most tokens of a step.
            requests: that run at once.
            types: of the caches.
        """
        most = max(1, min(16 if gpu else 6, passages // 3))
        return cls(step_tokens or (128 if gpu else 48), requests or most, **types)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a build may lose."""

    kl: float
    """Mean KL divergence in nats."""
    agreement: float
    """Least share of tokens with the reference's most likely one."""

    @classmethod
    def over(cls, rounding: Divergence) -> Limits:
        """Return the limits that follow from what plain torch loses in the same format."""
        share = rounding.agreement
        error = (share * (1 - share) / rounding.tokens) ** 0.5
        return cls(
            kl=FLOOR + ROUNDING * rounding.kl_mean + ERRORS * rounding.kl_error,
            agreement=share - DISAGREEMENT - ERRORS * error,
        )

    def passed(self, found: Divergence) -> bool:
        """Return whether a build is within both."""
        return found.kl_mean <= self.kl and found.agreement >= self.agreement


@dataclass(frozen=True, slots=True)
class Reference:
    """A model in float32, and the text that it was asked about."""

    passages: Mapping[str, Passage]
    logits: Mapping[str, torch.Tensor]
    """By passage: float32 [output, vocab]."""

    @property
    def outputs(self) -> dict[str, Sequence[int]]:
        """Return the tokens that the logits are about."""
        return {name: each.output for name, each in self.passages.items()}

    @property
    def perplexity(self) -> float:
        """Return that of the text."""
        return perplexity(self.logits, self.outputs)

    def against(self, logits: Mapping[str, torch.Tensor]) -> Divergence:
        """Compare logits of the same passages."""
        return diverge(self.logits, logits, self.outputs)

    @classmethod
    def of(
        cls, folder: Path, passages: Mapping[str, Passage], device: torch.device, form: Format
    ) -> Reference:
        """Load a checkpoint folder in float32 and compute the passages one by one.

        Matrices of an FP8 checkpoint are multiplied out; of any other, what is quantised while it
        is loaded is not quantised here. Dummy weights are those of the format, widened.

        Raises:
            EngineInputError: the folder is not a complete checkpoint of a supported model, or a
                GPU does not hold it.
        """
        plain = replace(form, quantization="none")
        if form.load_format != "dummy":
            plain = replace(plain, dtype="fp32")
        try:
            return cls(passages, alone(in_float32(load(folder, device, plain)), passages))
        except torch.OutOfMemoryError as error:
            raise EngineInputError(
                "model",
                "the GPU's memory does not hold it in float32, as the reference is",
                "use --device cpu, or a config.json of fewer layers with --load-format dummy",
            ) from error

    def rounding(self, model: Model) -> Divergence:
        """Return what plain torch loses in a model's format, one passage at a time."""
        return self.against(alone(plainly(model), self.passages))

    def measure(self, model: Model, switches: Switches, steps: Steps | None = None) -> Divergence:
        """Return what a model loses as it is served, with other switches than its own.

        Args:
            model: of which the weights are used.
            switches: which optimisations are on.
            steps: how the text goes through.

        Raises:
            EngineInputError: the memory does not do.
            RuntimeError: a step failed.
        """
        engine = serve(model, switches, steps or Steps(), context_of(self.passages))
        return self.against(engine.logits(self.passages))


def serve(model: Model, switches: Switches, steps: Steps, context: int) -> ForcedEngine:
    """Put an engine around a model, with other switches than its own.

    Args:
        model: of which the weights are used.
        switches: which optimisations are on.
        steps: sizes and formats of the engine.
        context: most tokens of a sequence.

    Raises:
        EngineInputError: the memory does not do.
    """
    return ForcedEngine.of(
        Model(model.shapes, model.weights, switches, model.dtype),
        model.weights.embedding.device,
        context=context,
        **asdict(steps),
    )


def compiling(
    folder: Path, form: Format, steps: Steps, context: int, device: torch.device
) -> Callable[[], None]:
    """Begin to compile what an engine of `serve` launches on a GPU; return what waits for it."""
    options = options_of(form, steps, context)
    process = compile_ahead(folder, options, device)

    def wait() -> None:
        if process is not None:
            process.wait()

    return wait


def options_of(form: Format, steps: Steps, context: int, **more: Any) -> EngineOptions:
    """Return the options of an engine.

    Args:
        form: what its numbers are kept in.
        steps: how texts go through it.
        context: most tokens of a sequence.
        more: of `EngineOptions`.
    """
    return EngineOptions(
        dtype=form.dtype,
        quantization=form.quantization,
        kv_cache_dtype=steps.kv_cache_dtype,
        state_dtype=steps.state_dtype,
        load_format=form.load_format,
        seed=form.seed,
        max_running_requests=steps.requests,
        max_batch_tokens=max(steps.step_tokens, steps.requests),
        context_length=context,
        **more,
    )


def load(folder: Path, device: torch.device, form: Format) -> Model:
    """Load a checkpoint folder in a format, all switches on.

    Raises:
        EngineInputError: the folder is not a complete checkpoint of a supported model.
    """
    return load_model(
        folder,
        device=device,
        dtype=DTYPES[form.dtype],
        switches=Switches(),
        load_format=form.load_format,
        seed=form.seed,
        quantization=form.quantization,
    )


def switches_of(names: Sequence[str], *, gpu: bool) -> list[str]:
    """Return those of some switches that change something on one device.

    Args:
        names: of switches.
        gpu: whether the device is one.

    Raises:
        EngineInputError: a name is not a switch.
    """
    for name in names:
        if name not in Switches.names():
            raise EngineInputError(
                "switch", f"{name!r} is not a switch", f"give some of {', '.join(Switches.names())}"
            )
    without = AMONG_RANKS if gpu else (*AMONG_RANKS, *ON_A_GPU)
    return [name for name in names if name not in without]


def builds(names: Sequence[str]) -> dict[str, Switches]:
    """Return sets of switches: all on, each of `names` off, each alone, all off."""
    alone = {name: Switches(**{each: each == name for each in Switches.names()}) for name in names}
    return {
        "all on": Switches(),
        **{f"{name} off": Switches.without(name) for name in names},
        **{f"{name} alone": switches for name, switches in alone.items()},
        "all off": Switches.without("all"),
    }
