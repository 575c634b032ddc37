"""Which tokens of which requests the next step computes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec

from upcurve.engine.errors import EngineInputError
from upcurve.engine.memory.memory import Memory
from upcurve.engine.schedule.request import Phase, Request

LONG_PROMPT_SHARE = 0.75
"""Share of a step's prefill budget that one prompt takes while others are behind it."""
SPARE_SHARE = 0.01
"""Share of the pages that admission leaves to the requests that run already and grow."""


class Scheduled(msgspec.Struct, frozen=True):
    """The next `count` tokens of one request, whose first `begin` are in memory."""

    request: Request
    begin: int
    count: int
    draws: bool
    """Whether a token is drawn after the last of them."""


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

    `schedule` takes what it returns for launched: the next call may come before that step has been
    computed, and needs none of its tokens.

    A request is admitted when memory for what it has is free, and grows page by page. Where a
    running one finds no page, the latest of the running gives its memory back and is computed anew
    later, with the tokens it has. Requests run in the order of arrival: whoever waits has come
    later than whoever runs, so the earliest is never preempted and always gets on. The order
    depends on arrivals and tokens alone.

    Some prompts may be computed elsewhere: they own memory while another engine fills it, which
    they cannot give away, and take nothing of a step.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        max_running_requests: int,
        max_batch_tokens: int,
        whole_prompts: bool = False,
    ) -> None:
        """Begin without requests.

        Args:
            memory: for requests.
            max_running_requests: most that are admitted.
            max_batch_tokens: of a step.
            whole_prompts: cut the first prompt of a step only: what else would be computed for a
                prompt that ends later anyway.

        Raises:
            EngineInputError: as `check_step`.
        """
        check_step(max_batch_tokens, max_running_requests)
        self._whole_prompts = whole_prompts
        self._memory = memory
        self._max_running_requests = max_running_requests
        self._max_batch_tokens = max_batch_tokens
        self._spare = int(memory.usage().total_pages * SPARE_SHARE)
        # In the order of arrival; by id, so that any one leaves at once.
        self.waiting: OrderedDict[str, Request] = OrderedDict()
        self.running: dict[str, Request] = {}
        self.preemptions = 0
        """How often a request gave its memory to an earlier one."""
        self.elsewhere: Callable[[Request], bool] = lambda _: False
        """Asked of a request that is about to be admitted: whether its prompt goes elsewhere."""
        self.left: list[Request] = []
        """Admitted for that, for somebody to take."""

    def add(self, request: Request) -> None:
        """Append a request to the queue."""
        self.waiting[request.id] = request

    def remove(self, request: Request) -> None:
        """Forget a request that has ended."""
        self.waiting.pop(request.id, None)
        self.running.pop(request.id, None)

    def schedule(self) -> list[Scheduled]:
        """Choose the next step: all decodes, then prefill chunks while the budget lasts."""
        before = self.preemptions
        step = self._decodes()
        left = self._max_batch_tokens - len(step)
        counts: dict[Request, int] = {}
        for request in self.running.values():
            if request.phase is Phase.PREFILLING:
                left -= self._share(request, left, counts)
        # What was just preempted waits until its memory is not wanted at once.
        while self.waiting and self.preemptions == before:
            request = next(iter(self.waiting.values()))
            if self.elsewhere(request):
                if not self._admit(request, Phase.RECEIVING):
                    break
                self.left.append(request)
                continue
            if not self._share(request, left, counts):
                break
            if not self._admit(request, Phase.PREFILLING):
                del counts[request]
                break
            left -= counts[request]
        for request, count in counts.items():
            # Nobody behind a long prompt wanted what it left.
            more = min(left, request.length - request.computed - count)
            left -= more
            step.append(self._prefill(request, count + more))
        # One token each first: the device computes them together.
        step.sort(key=lambda each: each.count > 1)
        return step

    def send_back(self, requests: Sequence[Request]) -> None:
        """Let running requests that own no memory any more wait again, before all others."""
        for request in reversed(requests):
            del self.running[request.id]
            request.phase = Phase.WAITING
            request.computed = 0
            self.waiting[request.id] = request
            self.waiting.move_to_end(request.id, last=False)

    def _decodes(self) -> list[Scheduled]:
        step = []
        for request in list(self.running.values()):
            if request.phase is not Phase.DECODING or request.drawn_out:
                continue
            if self._grow(request):
                step.append(Scheduled(request, request.computed, 1, draws=True))
                request.computed += 1
                request.pending += 1
        return step

    def _grow(self, request: Request) -> bool:
        """Make room for one token more; False where the request itself had to give way."""
        while request.memory is not None and not request.memory.grow(request.computed + 1):
            latest = reversed(self.running.values())
            self._preempt(next(each for each in latest if each.phase is not Phase.RECEIVING))
        return request.memory is not None

    def _preempt(self, request: Request) -> None:
        request.part().release()
        self.send_back([request])
        self.preemptions += 1

    def _share(self, request: Request, left: int, counts: dict[Request, int]) -> int:
        """Give a prompt its part of the budget: all of it, or most of what is left to one.

        What the first long prompt leaves is for those behind it that fit whole, so that short ones
        do not wait for a long one, and no prompt is cut into crumbs.
        """
        missing = request.length - request.computed
        if missing > left:
            cut = self._whole_prompts and bool(counts)
            cut |= any(count < each.length - each.computed for each, count in counts.items())
            missing = 0 if cut else min(left, max(1, int(left * LONG_PROMPT_SHARE)))
        if missing:
            counts[request] = missing
        return missing

    def _prefill(self, request: Request, count: int) -> Scheduled:
        begin = request.computed
        request.computed += count
        draws = request.computed == request.length
        if draws:
            request.phase = Phase.DECODING
            request.pending += 1
        return Scheduled(request, begin, count, draws)

    def _admit(self, request: Request, phase: Phase) -> bool:
        # All tokens of a preempted request have to be known before it is computed anew.
        if request.pending or len(self.running) >= self._max_running_requests:
            return False
        spare = self._spare if self.running else 0
        request.memory = self._memory.reserve(request.length, spare)
        if request.memory is None:
            return False
        del self.waiting[request.id]
        request.phase = phase
        self.running[request.id] = request
        return True
