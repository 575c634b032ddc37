"""The engine: requests in, steps, events out. One thread owns it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.event import Event, FinishReason
from upcurve.engine.execute.sampler import NO_TOKEN, Sampler, token_logprobs
from upcurve.engine.memory.budget import Budget, budget, free_bytes
from upcurve.engine.memory.memory import Memory
from upcurve.engine.model.batch import ForwardBatch, SequenceSlice
from upcurve.engine.model.model import LoadFormat, Model, load_model
from upcurve.engine.schedule.request import TERMINAL, Phase, Request, SamplingParameters
from upcurve.engine.schedule.scheduler import Scheduled, Scheduler, check_step
from upcurve.engine.switches import Switches

logger = logging.getLogger(__name__)

PAGE_SIZE = 16
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine is set up; the fields are the options of `upcurve serve`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 on a GPU, fp32 on the CPU."""
    load_format: LoadFormat = "auto"
    off: str = ""
    """Switches to turn off: names, comma-separated, or "all"."""
    max_running_requests: int = 64
    context_length: int | None = None
    """Most tokens of prompt and output together; None: what the model was made for."""
    max_batch_tokens: int = 2048
    threads: int | None = None
    """CPU threads; None: one less than the cores, which leaves one to HTTP."""
    seed: int = 0
    """Of dummy weights and of sampling without a seed."""


class Engine:
    """Continuous batching over one model: requests join and leave between steps."""

    def __init__(
        self,
        model: Model,
        *,
        device: torch.device,
        context_length: int,
        max_running_requests: int,
        max_batch_tokens: int,
        seed: int,
    ) -> None:
        check_step(max_batch_tokens, max_running_requests)
        self.model = model
        self.device = device
        self.context_length = context_length
        self.budget: Budget = budget(
            model.shapes,
            max_running_requests=max_running_requests,
            context_length=context_length,
            page_size=PAGE_SIZE,
            dtype=model.dtype,
            free=free_bytes(device),
        )
        self.memory = Memory(
            model.shapes,
            max_running_requests=max_running_requests,
            token_capacity=self.budget.token_capacity,
            page_size=PAGE_SIZE,
            device=device,
            dtype=model.dtype,
        )
        self._scheduler = Scheduler(
            self.memory,
            max_running_requests=max_running_requests,
            max_batch_tokens=max_batch_tokens,
        )
        self._sampler = Sampler(device, seed)
        self._requests: dict[str, Request] = {}
        self.failed_steps_in_a_row = 0

    @classmethod
    def from_folder(cls, folder: Path, options: EngineOptions) -> Engine:
        """Load a checkpoint folder.

        Raises:
            EngineInputError: an option or the checkpoint is unusable, or the memory does not do.
        """
        if options.device == "cuda" and not torch.cuda.is_available():
            raise EngineInputError("device", "torch sees no GPU", "use --device cpu")
        on_gpu = options.device == "cuda" or (
            options.device == "auto" and torch.cuda.is_available()
        )
        device = torch.device("cuda" if on_gpu else "cpu")
        torch.set_num_threads(options.threads or max(1, (os.cpu_count() or 1) - 1))
        dtype = options.dtype if options.dtype != "auto" else ("bf16" if on_gpu else "fp32")
        switches = Switches.without(options.off)
        model = load_model(
            folder,
            device=device,
            dtype=DTYPES[dtype],
            switches=switches,
            load_format=options.load_format,
            seed=options.seed,
        )
        if switches.shared_expert_fusion and not model.shared_expert_fused:
            logger.warning("shared_expert_fusion is off: the shared expert has a size of its own")
        most = model.shapes.max_position_embeddings
        if (options.context_length or 1) > most:
            raise EngineInputError(
                "context-length", f"{options.context_length} is over the model's {most}", "lower it"
            )
        return cls(
            model,
            device=device,
            context_length=options.context_length or most,
            max_running_requests=options.max_running_requests,
            max_batch_tokens=options.max_batch_tokens,
            seed=options.seed,
        )

    @property
    def waiting(self) -> int:
        """Requests that are not admitted yet."""
        return len(self._scheduler.waiting)

    @property
    def running(self) -> int:
        """Requests that own memory."""
        return self.memory.usage().slots

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._requests)

    @property
    def unfinished(self) -> list[str]:
        """Ids of the requests that have no terminal event yet, in the order of arrival."""
        return list(self._requests)

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            EngineInputError: it could never be computed, or its id is in use.
        """
        if not request.prompt or request.sampling.max_tokens < 1:
            raise EngineInputError("prompt", "it or max_tokens is empty", "give one token or more")
        if request.most_tokens > self.context_length:
            raise EngineInputError(
                "prompt",
                f"{len(request.prompt)} tokens and max_tokens {request.sampling.max_tokens} "
                f"are more than the context of {self.context_length}",
                "shorten either",
            )
        vocab_size = self.model.shapes.vocab_size
        if min(request.prompt) < 0 or max(request.prompt) >= vocab_size:
            raise EngineInputError(
                "prompt", f"a token id is not in 0..{vocab_size - 1}", "use the model's tokenizer"
            )
        if request.id in self._requests:
            raise EngineInputError("request id", f"{request.id} is running", "give it another")
        self._requests[request.id] = request
        self._scheduler.add(request)

    def abort(self, request_id: str) -> list[Event]:
        """End a request now and free its memory; nothing happens where it has ended already."""
        request = self._requests.get(request_id)
        return [] if request is None else [self._end(request, Phase.ABORTED, "aborted")]

    def abort_all(self) -> list[Event]:
        """End every request."""
        return [event for each in self.unfinished for event in self.abort(each)]

    def step(self) -> list[Event]:
        """Compute one step; a step that fails ends the requests in it, each with its error."""
        step = self._scheduler.schedule()
        if not step:
            return []
        events: list[Event] = []
        try:
            self._compute(step, events)
        except Exception as error:
            logger.exception("a step failed")
            self.failed_steps_in_a_row += 1
            text = f"{type(error).__name__}: {error}"
            events += [
                self._end(each.request, Phase.FAILED, "failed", error=text)
                for each in step
                if each.request.phase not in TERMINAL
            ]
        else:
            self.failed_steps_in_a_row = 0
        return events

    def generate(
        self, prompts: Sequence[list[int]], sampling: SamplingParameters
    ) -> list[list[int]]:
        """Generate for all prompts and return their output tokens: the engine without a server.

        Raises:
            EngineInputError: as `add`.
            RuntimeError: a step failed.
        """
        requests = [Request(f"generate-{i}", prompt, sampling) for i, prompt in enumerate(prompts)]
        try:
            for request in requests:
                self.add(request)
            while self.has_work:
                for event in self.step():
                    if event.finish == "failed":
                        raise RuntimeError(event.error)
        finally:
            for request in requests:
                self.abort(request.id)
        return [request.output for request in requests]

    def _compute(self, step: list[Scheduled], events: list[Event]) -> None:
        """Compute a step and append its events, so that an error does not lose those before it."""
        batch = self._batch(step)
        ready = [each.request for each in step if _reaches_end(each)]
        logits = self.model.forward(batch, self.memory)
        for each in step:
            each.request.computed += each.count
        if not ready:
            return
        parameters = [request.sampling for request in ready]
        tokens = self._sampler.sample(logits, [request.id for request in ready], parameters)
        logprobs = token_logprobs(logits, tokens, parameters)
        for request, token, logprob in zip(ready, tokens, logprobs, strict=True):
            if token == NO_TOKEN:
                error = "the model's logits are not finite"
                events.append(self._end(request, Phase.FAILED, "failed", error=error))
                continue
            request.phase = Phase.DECODING
            request.output.append(token)
            finish = self._finish(request, token)
            if finish is not None:
                self._forget(request, Phase.FINISHED)
            events.append(Event(request.id, token, logprob, finish))

    def _batch(self, step: list[Scheduled]) -> ForwardBatch:
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[SequenceSlice] = []
        logit_rows: list[int] = []
        for each in step:
            request, begin = each.request, each.request.computed
            if request.memory is None:
                raise RuntimeError(f"request {request.id} is scheduled without memory")
            sequences.append(SequenceSlice(len(tokens), each.count, begin, request.memory))
            if each.count == 1:
                tokens.append(request.token(begin))
                positions.append(begin)
            else:
                # Output is never prefilled, so a chunk lies within the prompt.
                tokens += request.prompt[begin : begin + each.count]
                positions += range(begin, begin + each.count)
            if _reaches_end(each):
                logit_rows.append(len(tokens) - 1)
        as_tensor = (
            torch.tensor(values, dtype=torch.int64, device=self.device)
            for values in (tokens, positions, logit_rows)
        )
        token_ids, places, rows = as_tensor
        return ForwardBatch(token_ids, places, tuple(sequences), rows)

    def _finish(self, request: Request, token: int) -> FinishReason | None:
        sampling = request.sampling
        ends = () if sampling.ignore_eos else self.model.shapes.end_of_sequence_ids
        if token in ends or token in sampling.stop_token_ids:
            return "stop"
        return "length" if len(request.output) >= sampling.max_tokens else None

    def _end(
        self, request: Request, phase: Phase, finish: FinishReason, error: str | None = None
    ) -> Event:
        self._forget(request, phase)
        return Event(request.id, None, finish=finish, error=error)

    def _forget(self, request: Request, phase: Phase) -> None:
        del self._requests[request.id]
        self._scheduler.remove(request)
        self._sampler.forget(request.id)
        request.end(phase)


def _reaches_end(each: Scheduled) -> bool:
    return each.request.computed + each.count == each.request.length
