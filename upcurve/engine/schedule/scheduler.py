"""Which tokens of which requests the next step computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from upcurve.engine.errors import EngineInputError
from upcurve.engine.memory.reservation import Reservation
from upcurve.engine.schedule.request import Phase, Request


class ReservesMemory(Protocol):
    """The part of the memory that admission needs."""

    def reserve(self, tokens: int) -> Reservation | None:
        """Hand out memory for that many tokens, or None if it is not free now."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The next `count` tokens of one request."""

    request: Request
    count: int


def check_step(max_batch_tokens: int, max_running_requests: int) -> None:
    """Check that a step can decode every running request.

    Raises:
        EngineInputError: it cannot.
    """
    if max_batch_tokens < max_running_requests:
        raise EngineInputError(
            "max-batch-tokens",
            f"{max_batch_tokens} is less than the {max_running_requests} running requests, "
            "each of which decodes one token a step",
            "raise it or lower --max-running-requests",
        )


class Scheduler:
    """Token-budget steps that mix decodes with prefill chunks, first come first served.

    A request is admitted when memory for its prompt and all the tokens it may generate is free, so
    a running one cannot run out half-way. The head of the queue waits for its memory and is not
    overtaken. The order depends on arrivals alone.
    """

    def __init__(
        self, memory: ReservesMemory, *, max_running_requests: int, max_batch_tokens: int
    ) -> None:
        check_step(max_batch_tokens, max_running_requests)
        self._memory = memory
        self._max_running_requests = max_running_requests
        self._max_batch_tokens = max_batch_tokens
        # In the order of arrival and of admission; by id, so that any one leaves at once.
        self.waiting: dict[str, Request] = {}
        self.running: dict[str, Request] = {}

    def add(self, request: Request) -> None:
        """Append a request to the queue."""
        self.waiting[request.id] = request

    def remove(self, request: Request) -> None:
        """Forget a request that has ended."""
        self.waiting.pop(request.id, None)
        self.running.pop(request.id, None)

    def schedule(self) -> list[Scheduled]:
        """Choose the next step: all decodes, then prefill chunks while the budget lasts."""
        running = self.running.values()
        step = [Scheduled(each, 1) for each in running if each.phase is Phase.DECODING]
        left = self._max_batch_tokens - len(step)
        for request in running:
            if request.phase is Phase.PREFILLING and left:
                left -= self._prefill(request, left, step)
        while left and len(self.running) < self._max_running_requests:
            admitted = self._admit()
            if admitted is None:
                break
            left -= self._prefill(admitted, left, step)
        return step

    def _prefill(self, request: Request, left: int, step: list[Scheduled]) -> int:
        count = min(left, request.length - request.computed)
        step.append(Scheduled(request, count))
        return count

    def _admit(self) -> Request | None:
        request = next(iter(self.waiting.values()), None)
        if request is None:
            return None
        memory = self._memory.reserve(request.most_tokens)
        if memory is None:
            return None
        del self.waiting[request.id]
        request.memory = memory
        request.phase = Phase.PREFILLING
        self.running[request.id] = request
        return request
