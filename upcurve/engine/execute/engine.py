"""The engine: requests in, steps, events out. One thread owns it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.device import NO_TOKEN, Device, DeviceLostError, Flight
from upcurve.engine.execute.event import Event, FinishReason, TokenLogprobs
from upcurve.engine.execute.role import Role
from upcurve.engine.memory.memory import Memory
from upcurve.engine.schedule.request import TERMINAL, Phase, Request, SamplingParameters
from upcurve.engine.schedule.scheduler import Scheduled, Scheduler

if TYPE_CHECKING:
    # It imports torch, which the HTTP side has no use for.
    from upcurve.engine.execute.turns import Turns

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Launched:
    step: list[Scheduled]
    flight: Flight


class Engine:
    """Continuous batching over one device: requests join and leave between steps.

    With `overlap` the next step is scheduled and launched before the tokens of the last one are
    looked at, so that the device never waits for the host. A request that turns out to have ended
    is then computed once more; nobody sees that token.
    """

    def __init__(
        self,
        device: Device,
        memory: Memory,
        *,
        vocab_size: int,
        end_of_sequence_ids: tuple[int, ...] = (),
        context_length: int,
        max_running_requests: int,
        max_batch_tokens: int,
        whole_prompts: bool = False,
        overlap: bool = True,
        check_memory: bool = False,
        description: str = "",
        turns: Turns | None = None,
    ) -> None:
        self.device = device
        self.turns = turns
        """With other replicas, whose steps need this engine to take part."""
        self.role: Role | None = None
        """Where prompts are computed apart from outputs; set before the first request."""
        self.memory = memory
        self.context_length = context_length
        self.description = description
        """What its memory is, in a line."""
        self.vocab_size = vocab_size
        self.end_of_sequence_ids = end_of_sequence_ids
        self._overlap = overlap and device.asynchronous
        self._check_memory = check_memory
        self.scheduler = Scheduler(
            memory,
            max_running_requests=max_running_requests,
            max_batch_tokens=max_batch_tokens,
            whole_prompts=whole_prompts,
        )
        self._requests: dict[str, Request] = {}
        self._launched: _Launched | None = None
        self._held_up = False
        """Whether nothing can be scheduled before there is news of another engine."""
        self.steps = 0
        self.step_tokens = 0
        """Tokens of prompts and outputs in the step that was launched last."""
        self.failed_steps_in_a_row = 0
        self.senseless_steps_in_a_row = 0
        """Steps that drew tokens, of which none came from finite logits."""

    @property
    def waiting(self) -> int:
        """Requests that are not admitted yet."""
        return len(self.scheduler.waiting)

    @property
    def running(self) -> int:
        """Requests that own memory."""
        return len(self.scheduler.running)

    @property
    def preemptions(self) -> int:
        """How often a request gave its memory to an earlier one and was computed anew."""
        return self.scheduler.preemptions

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        if self.role is not None and self.role.has_news:
            return True
        waits = bool(self._requests) and not self._held_up
        return waits or self._launched is not None or self._called

    @property
    def in_flight(self) -> bool:
        """Whether a step is launched whose tokens were not looked at yet."""
        return self._launched is not None

    @property
    def _called(self) -> bool:
        return self.turns is not None and self.turns.called

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
        if min(request.prompt) < 0 or max(request.prompt) >= self.vocab_size:
            raise EngineInputError(
                "prompt",
                f"a token id is not in 0..{self.vocab_size - 1}",
                "use the model's tokenizer",
            )
        if request.id in self._requests:
            raise EngineInputError("request id", f"{request.id} is running", "give it another")
        self._held_up = False
        self._requests[request.id] = request
        self.scheduler.add(request)

    def abort(self, request_id: str) -> list[Event]:
        """End a request now and free its memory; nothing happens where it has ended already."""
        self._held_up = False
        request = self._requests.get(request_id)
        return [] if request is None else [self._end(request, Phase.ABORTED, "aborted")]

    def abort_all(self) -> list[Event]:
        """End every request."""
        return [event for each in self.unfinished for event in self.abort(each)]

    def attend(self) -> list[Event]:
        """Act on what other engines have told; return what that gave."""
        return [] if self.role is None else self.role.attend(self)

    def step(self) -> list[Event]:
        """Launch the next step and return what the last one gave.

        A step that fails ends the requests in it, each with its error.

        Raises:
            DeviceLostError: no step can be computed any more.
        """
        events = self.attend()
        before, self._launched = self._launched, None
        step = self.scheduler.schedule()
        if step or self._called:
            self.steps += 1
            self.step_tokens = sum(each.count for each in step)
            try:
                self._launched = _Launched(step, self.device.launch(step))
            except DeviceLostError:
                raise
            except Exception as error:
                events += self._fail(step, error)
        if before is not None:
            events += self._collect(before)
        if self.role is not None:
            # What was written where memory was handed out anew has been computed.
            self.role.flush(self)
            self._held_up = not step and before is None
        if self._launched is not None and not self._overlap:
            launched, self._launched = self._launched, None
            events += self._collect(launched)
        if self._check_memory:
            self.check()
        return events

    def check(self) -> None:
        """Prove that no page or slot leaks, is shared, or is another's than the device believes.

        Raises:
            RuntimeError: one does.
        """
        self.memory.check()
        running = self.scheduler.running.values()
        owned = len(running) + (0 if self.role is None else self.role.kept)
        if owned != self.memory.usage().slots:
            raise RuntimeError(f"{owned} requests own memory, {self.memory.usage().slots} slots")
        for request in running:
            if request.memory is None or request.memory.capacity < request.computed:
                raise RuntimeError(f"request {request.id} has computed more than its memory holds")
        self.device.check(list(running))

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

    def _collect(self, launched: _Launched) -> list[Event]:
        """Wait for a step; an error in the middle does not lose the events before it."""
        events: list[Event] = []
        try:
            drawn = launched.flight.wait()
            drawing = [each.request for each in launched.step if each.draws]
            for request, token, logprobs in zip(drawing, drawn.tokens, drawn.logprobs, strict=True):
                request.pending -= 1
                # It may have ended while the step was on its way.
                if request.phase not in TERMINAL:
                    events += self._drawn(request, token, logprobs)
        except Exception as error:
            return events + self._fail(launched.step, error)
        self.failed_steps_in_a_row = 0
        if drawn.tokens:
            senseless = all(token == NO_TOKEN for token in drawn.tokens)
            self.senseless_steps_in_a_row = self.senseless_steps_in_a_row + 1 if senseless else 0
        return events

    def _drawn(self, request: Request, token: int, logprobs: TokenLogprobs | None) -> list[Event]:
        if request.target is None or self.role is None or token == NO_TOKEN:
            return [self.take(request, token, logprobs)]
        request.output.append(token)
        self.role.drawn(self, request, token, logprobs)
        return []

    def take(self, request: Request, token: int, logprobs: TokenLogprobs | None) -> Event:
        """Append a token to a request, which may end with it."""
        if token == NO_TOKEN:
            error = "the model's logits are not finite"
            return self._end(request, Phase.FAILED, "failed", error=error)
        request.output.append(token)
        finish = self._finish(request, token)
        if finish is not None:
            self._forget(request, Phase.FINISHED)
        return Event(request.id, token, logprobs, finish)

    def finish(self, request: Request) -> None:
        """End a request whose output was for another engine."""
        self._forget(request, Phase.FINISHED)

    def _fail(self, step: list[Scheduled], error: Exception) -> list[Event]:
        logger.error("a step failed", exc_info=error)
        self.failed_steps_in_a_row += 1
        text = f"{type(error).__name__}: {error}"
        return [
            self._end(each.request, Phase.FAILED, "failed", error=text)
            for each in step
            if each.request.phase not in TERMINAL
        ]

    def _finish(self, request: Request, token: int) -> FinishReason | None:
        sampling = request.sampling
        ends = () if sampling.ignore_eos else self.end_of_sequence_ids
        if token in ends or token in sampling.stop_token_ids:
            return "stop"
        return "length" if len(request.output) >= sampling.max_tokens else None

    def _end(
        self, request: Request, phase: Phase, finish: FinishReason, error: str | None = None
    ) -> Event:
        self._forget(request, phase, error)
        return Event(request.id, None, finish=finish, error=error)

    def _forget(self, request: Request, phase: Phase, error: str | None = None) -> None:
        if self.role is not None:
            self.role.leave(request, error)
        del self._requests[request.id]
        self.scheduler.remove(request)
        request.end(phase)
