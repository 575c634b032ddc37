"""An engine that is told its tokens, and whose logits are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from upcurve.engine.build import engine_of
from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.execute.runner import ModelRunner
from upcurve.engine.execute.sampler import Sampler
from upcurve.engine.model.model import Model
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.schedule.scheduler import Scheduled


@dataclass(frozen=True, slots=True)
class Passage:
    """One sequence of tokens; the logits behind its prompt are compared."""

    prompt: Sequence[int]
    output: Sequence[int]
    """What comes after the prompt, token by token."""

    @property
    def seen(self) -> list[int]:
        """Return the tokens that a model sees: all but the last, which nothing is asked behind."""
        return [*self.prompt, *self.output[:-1]]


def context_of(passages: Mapping[str, Passage]) -> int:
    """Return the tokens of the longest passage."""
    return max(len(each.prompt) + len(each.output) for each in passages.values())


class ForcedSampler(Sampler):
    """Stands where tokens are drawn: gives those that it was given, and keeps the logits."""

    def __init__(self, device: torch.device, vocab_size: int) -> None:
        super().__init__(device, seed=0)
        self._vocab_size = vocab_size
        self._outputs: dict[str, Sequence[int] | None] = {}
        self.logits: dict[str, torch.Tensor] = {}
        """By request: float32 [output, vocab], row i before token i of the output."""

    def expect(self, name: str, output: Sequence[int] | None, count: int) -> None:
        """Prepare for a request of `count` tokens; the most likely ones where `output` is None."""
        self._outputs[name] = output
        self.logits[name] = torch.full((count, self._vocab_size), torch.nan, device=self._device)

    def sample(self, logits: torch.Tensor, drawing: Sequence[Scheduled]) -> torch.Tensor:
        """Return the next given token of each row, int64 [R]."""
        tokens = []
        for row, each in enumerate(drawing):
            name = each.request.id
            number = each.begin + each.count - len(each.request.prompt)
            output = self._outputs[name]
            tokens.append(int(logits[row].argmax()) if output is None else output[number])
            self.logits[name][number] = logits[row]
        return torch.tensor(tokens, device=logits.device)


class ForcedEngine:
    """The engine as it serves, around a model; only the tokens that it draws are given.

    Scheduling, pages, slots, chunks of prompts, decode steps and graphs are those of a server.
    Between its runs `engine` draws its own tokens.
    """

    def __init__(self, engine: Engine) -> None:
        """Take an engine that has no request yet."""
        self.engine = engine
        assert isinstance(engine.device, ModelRunner)
        self._runner = engine.device
        device = self._runner.model.weights.embedding.device
        self._sampler = ForcedSampler(device, engine.vocab_size)

    @classmethod
    def of(
        cls,
        model: Model,
        device: torch.device | str,
        *,
        step_tokens: int,
        requests: int,
        context: int,
        **options: Any,
    ) -> ForcedEngine:
        """Put an engine around a model: give it its memory; on a GPU compile and capture.

        Args:
            model: on `device`.
            device: where steps are computed.
            step_tokens: most tokens of a step: longer prompts come in chunks.
            requests: most requests at once: the others take their slots after them.
            context: most tokens of a sequence.
            options: more of `EngineOptions`.

        Raises:
            EngineInputError: the memory does not do, or the context is over the model's.
        """
        return cls(
            engine_of(
                model,
                EngineOptions(
                    max_batch_tokens=max(step_tokens, requests),
                    max_running_requests=requests,
                    context_length=context,
                    **{"memory_share": 0.98, **options},
                ),
                torch.device(device),
            )
        )

    def run(
        self, sequences: Mapping[str, tuple[Sequence[int], Sequence[int] | None]], output: int
    ) -> dict[str, tuple[torch.Tensor, list[int]]]:
        """Compute requests together, all with outputs of one length.

        Args:
            sequences: by name: a prompt, and the tokens to force after it, or None: then the most
                likely ones are drawn.
            output: tokens of each request.

        Returns:
            By name: float32 [output, vocab], and the tokens.

        Raises:
            RuntimeError: a step failed.
        """
        requests = {
            name: self._add(name, prompt, forced, output)
            for name, (prompt, forced) in sequences.items()
        }
        logits = self._finish()
        return {name: (logits[name], request.output) for name, request in requests.items()}

    def logits(self, passages: Mapping[str, Passage]) -> dict[str, torch.Tensor]:
        """Compute passages together: by name float32 [output, vocab].

        Raises:
            RuntimeError: a step failed.
        """
        for name, each in passages.items():
            self._add(name, each.prompt, each.output, len(each.output))
        return self._finish()

    def _add(
        self, name: str, prompt: Sequence[int], forced: Sequence[int] | None, count: int
    ) -> Request:
        sampling = SamplingParameters(count, temperature=0, ignore_eos=True)
        request = Request(name, list(prompt), sampling)
        self._sampler.expect(name, forced, count)
        self.engine.add(request)
        return request

    def _finish(self) -> dict[str, torch.Tensor]:
        drawing, self._runner.sampler = self._runner.sampler, self._sampler
        try:
            while self.engine.has_work:
                for event in self.engine.step():
                    if event.finish == "failed":
                        raise RuntimeError(event.error)
        finally:
            self._runner.sampler = drawing
            found, self._sampler.logits = self._sampler.logits, {}
        return found
