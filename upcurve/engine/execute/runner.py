"""Computes steps on a GPU or the CPU: inputs, forward pass, drawing; waits for nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch

from upcurve.engine.execute.device import DeviceLostError, Drawn
from upcurve.engine.execute.graphs import DecodeGraphs
from upcurve.engine.execute.inputs import SentInputs, StepInputs
from upcurve.engine.execute.sampler import DeviceLogprobs, Sampler, to_host, token_logprobs
from upcurve.engine.execute.transfers import Order, Transfers
from upcurve.engine.execute.turns import Turns
from upcurve.engine.memory.caches import Caches
from upcurve.engine.model.model import Model
from upcurve.engine.parallel.control import Control
from upcurve.engine.schedule.request import Request
from upcurve.engine.schedule.scheduler import Scheduled

APART_SECONDS = 5.0
"""How long a rank that cannot go on waits to be told which other one is gone."""

encode_plan = msgspec.msgpack.Encoder().encode
decode_plan = msgspec.msgpack.Decoder(StepInputs).decode


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

    Of several ranks the leader plans and draws: the others are told what to compute, and get the
    tokens that it drew, so that nothing is decided twice.
    """

    def __init__(
        self,
        model: Model,
        caches: Caches,
        *,
        device: torch.device,
        seed: int,
        control: Control | None = None,
        turns: Turns | None = None,
    ) -> None:
        """Take what steps are computed with.

        Args:
            model: or what this rank has of it.
            caches: likewise.
            device: where they are.
            seed: of sampling.
            control: connections to other ranks.
            turns: with replicas that share their experts.
        """
        self.model = model
        self.caches = caches
        self.asynchronous = device.type == "cuda"
        self.graphs: DecodeGraphs | None = None
        self.transfers: Transfers | None = None
        """With other engines, where prompts are computed apart from outputs."""
        self._device = device
        self._control = control
        self.turns = turns
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
        """Begin to compute a step.

        Raises:
            DeviceLostError: it cannot, and other ranks wait for it or are gone.
        """
        inputs = StepInputs.of(step, self.caches)
        if self._control is None:
            return self._launch(inputs, step)
        try:
            if self.turns is not None:
                self.turns.agree(inputs)
            self._control.announce(encode_plan(inputs))
            return self._launch(inputs, step)
        except Exception as error:
            # Whoever watches the other ranks ends this process where one of them is gone.
            time.sleep(APART_SECONDS)
            raise DeviceLostError(f"the ranks are apart: {error}") from error

    def order(self, order: Order) -> None:
        """Have all ranks obey an order, in its place between the steps.

        Raises:
            OSError: one of them is gone.
        """
        inputs = StepInputs(orders=[order])
        if self._control is not None:
            self._control.announce(encode_plan(inputs))
        self._obey(inputs)

    def _obey(self, inputs: StepInputs) -> None:
        if self.transfers is not None:
            for each in inputs.orders:
                self.transfers.obey(each)

    @torch.inference_mode()
    def follow(self, plan: bytes) -> None:
        """Begin to compute a step that the leader has launched, or obey its orders."""
        inputs = decode_plan(plan)
        if inputs.orders:
            self._obey(inputs)
            return
        _, sent = self._forward(inputs)
        if inputs.drawing_rows:
            tokens = torch.empty_like(sent.drawing_slots)
            self._take(tokens, sent)

    def _forward(self, inputs: StepInputs) -> tuple[torch.Tensor, SentInputs]:
        """Compute a step's logits [R, vocab]."""
        replay = self.graphs is not None and self.graphs.fit(inputs)
        if not inputs.rows:
            # It is for other replicas, which have some.
            inputs.pad(1, self.caches.padding_slot)
        sent = inputs.send(self.caches, self._device)
        if replay and self.graphs is not None:
            return self.graphs.replay(sent)[: len(inputs.drawing_rows)], sent
        written = None
        if inputs.parts and self.transfers is not None:
            written = self.transfers.begin(inputs.parts)
        batch = inputs.batch(sent, self._last_tokens, written)
        return self.model.forward(batch, self.caches), sent

    def _take(self, tokens: torch.Tensor, sent: SentInputs) -> torch.Tensor:
        """Keep the leader's tokens where the next step reads them."""
        tokens = self.model.ranks.heads.from_first(tokens)
        self._last_tokens.index_copy_(0, sent.drawing_slots, tokens.clamp_min(0))
        return tokens

    def _launch(self, inputs: StepInputs, step: Sequence[Scheduled]) -> _Flight:
        logits, sent = self._forward(inputs)
        tokens, logprobs = None, None
        drawing = [each for each in step if each.draws]
        if drawing:
            tokens = self._take(self.sampler.sample(logits, drawing), sent)
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
