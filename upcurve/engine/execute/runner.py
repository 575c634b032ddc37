"""Computes steps on a GPU or the CPU: inputs, forward pass, drawing; waits for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from upcurve.engine.execute.device import Drawn
from upcurve.engine.execute.graphs import DecodeGraphs
from upcurve.engine.execute.inputs import StepInputs
from upcurve.engine.execute.sampler import DeviceLogprobs, Sampler, to_host, token_logprobs
from upcurve.engine.memory.caches import Caches
from upcurve.engine.model.model import Model
from upcurve.engine.schedule.request import Request
from upcurve.engine.schedule.scheduler import Scheduled


@dataclass(frozen=True, slots=True)
class _Flight:
    tokens: torch.Tensor | None
    logprobs: DeviceLogprobs | None
    done: torch.cuda.Event | None

    def wait(self) -> Drawn:
        if self.done is not None:
            self.done.synchronize()
        if self.tokens is None:
            return Drawn((), ())
        tokens = self.tokens.tolist()
        none = [None] * len(tokens)
        return Drawn(tokens, none if self.logprobs is None else self.logprobs.by_row(len(tokens)))


class ModelRunner:
    """One model and its caches on one device.

    The last token of every slot stays on the device, so that the next step can be launched before
    anybody on the host has seen it.
    """

    def __init__(self, model: Model, caches: Caches, *, device: torch.device, seed: int) -> None:
        self.model = model
        self.caches = caches
        self.asynchronous = device.type == "cuda"
        self.graphs: DecodeGraphs | None = None
        self._device = device
        self.sampler = Sampler(device, seed)
        """Replaceable: what draws the tokens of a step from its logits."""
        slots = caches.page_tables.shape[0]
        self._last_tokens = torch.zeros(slots, dtype=torch.int64, device=device)

    def capture(self, largest: int) -> None:
        """Capture graphs of decode steps of up to `largest` requests.

        Raises:
            RuntimeError: the device cannot.
        """
        self.graphs = DecodeGraphs(self.model, self.caches, self._last_tokens, largest)

    @torch.inference_mode()
    def launch(self, step: Sequence[Scheduled]) -> _Flight:
        """Begin to compute a step."""
        inputs = StepInputs.of(step)
        replay = self.graphs is not None and self.graphs.fit(inputs)
        sent = inputs.send(self.caches, self._device)
        if replay and self.graphs is not None:
            logits = self.graphs.replay(sent)[: len(inputs.drawing_rows)]
        else:
            logits = self.model.forward(inputs.batch(sent, self._last_tokens), self.caches)
        tokens, logprobs = None, None
        drawing = [each for each in step if each.draws]
        if drawing:
            tokens = self.sampler.sample(logits, drawing)
            self._last_tokens.index_copy_(0, sent.drawing_slots, tokens.clamp_min(0))
            logprobs = token_logprobs(logits, tokens, [each.request.sampling for each in drawing])
            if logprobs is not None:
                logprobs = logprobs.copied()
            tokens = to_host(tokens)
        done = None
        if self.asynchronous:
            done = torch.cuda.Event()
            done.record()
        return _Flight(tokens, logprobs, done)

    def check(self, requests: Sequence[Request]) -> None:
        """Prove that the device's page table is its owners'.

        Raises:
            RuntimeError: a row differs.
        """
        self.caches.check([each.memory for each in requests if each.memory is not None])
