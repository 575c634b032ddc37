import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.errors import EngineInputError
from upcurve.engine.schedule.request import TERMINAL, Phase, Request, SamplingParameters
from upcurve.engine.schedule.scheduler import Scheduler


@dataclass
class Tokens:
    """A reservation of the counting memory."""

    memory: "CountingMemory"
    tokens: int

    def release(self) -> None:
        self.memory.free += self.tokens
        self.memory.slots += 1


@dataclass
class CountingMemory:
    """Hands out tokens and slots and counts them: the scheduler's view of the real memory."""

    free: int
    slots: int
    refused: int = field(default=0)

    def reserve(self, tokens):
        if tokens > self.free or not self.slots:
            self.refused += 1
            return None
        self.free -= tokens
        self.slots -= 1
        return Tokens(self, tokens)


def request(name, prompt, output):
    return Request(str(name), [1] * prompt, SamplingParameters(max_tokens=output))


def run(scheduler, arrivals, *, aborts=frozenset(), budget):
    """Feed arrivals {step: requests}, play the engine's part, and return the steps."""
    steps = []
    everyone = [each for group in arrivals.values() for each in group]
    last = max(arrivals, default=0)
    index = 0
    while index <= last or any(each.phase not in TERMINAL for each in everyone):
        for each in arrivals.get(index, []):
            scheduler.add(each)
        for each in everyone:
            arrived = any(each in group for at, group in arrivals.items() if at <= index)
            if (each.id, index) in aborts and arrived and each.phase not in TERMINAL:
                each.end(Phase.ABORTED)
                scheduler.remove(each)
        step = scheduler.schedule()
        assert sum(each.count for each in step) <= budget
        assert all(each.count > 0 for each in step)
        assert len({each.request.id for each in step}) == len(step)
        for each in step:
            each.request.computed += each.count
            if each.request.computed == each.request.length:
                each.request.phase = Phase.DECODING
                each.request.output.append(7)
                if len(each.request.output) == each.request.sampling.max_tokens:
                    each.request.end(Phase.FINISHED)
                    scheduler.remove(each.request)
        steps.append([(each.request.id, each.count) for each in step])
        index += 1
        assert index < 200_000, "a request starves"
    return steps


sizes = st.tuples(st.integers(1, 40), st.integers(1, 8))


@given(
    st.lists(st.tuples(st.integers(0, 10), sizes), min_size=1, max_size=25),
    st.integers(1, 6),
    st.integers(6, 30),
    st.sets(st.tuples(st.integers(0, 24), st.integers(0, 20)), max_size=8),
)
def test_every_request_ends_once_within_the_budget_and_the_order_repeats(
    arriving, slots, budget, aborts
):
    def build():
        arrivals = {}
        for index, (at, (prompt, output)) in enumerate(arriving):
            arrivals.setdefault(at, []).append(request(index, prompt, output))
        memory = CountingMemory(free=60, slots=slots)
        scheduler = Scheduler(memory, max_running_requests=slots, max_batch_tokens=budget)
        named = {(str(index), at) for index, at in aborts}
        steps = run(scheduler, arrivals, aborts=named, budget=budget)
        assert (memory.free, memory.slots) == (60, slots)
        done = [each for group in arrivals.values() for each in group]
        assert all(each.phase in (Phase.FINISHED, Phase.ABORTED) for each in done)
        return steps

    assert build() == build()


def test_first_come_first_served_and_the_head_is_not_overtaken():
    memory = CountingMemory(free=20, slots=4)
    scheduler = Scheduler(memory, max_running_requests=4, max_batch_tokens=64)
    first, large, small = request("first", 4, 8), request("large", 15, 1), request("small", 1, 1)
    for each in (first, large, small):
        scheduler.add(each)
    assert [each.request.id for each in scheduler.schedule()] == ["first"]
    assert list(scheduler.waiting.values()) == [large, small]


def test_what_has_ended_is_kept_nowhere():
    """Also behind a head that waits: clients that give up must not fill the memory."""
    scheduler = Scheduler(CountingMemory(10, 2), max_running_requests=2, max_batch_tokens=8)
    running, head = request("running", 4, 4), request("head", 4, 4)
    gone = [request(f"gone-{index}", 1, 1) for index in range(5)]
    for each in (running, head, *gone):
        scheduler.add(each)
    scheduler.schedule()
    for each in gone:
        each.end(Phase.ABORTED)
        scheduler.remove(each)
    assert list(scheduler.waiting.values()) == [head]
    running.end(Phase.ABORTED)
    scheduler.remove(running)
    assert not scheduler.running
    assert [each.request for each in scheduler.schedule()] == [head]


def test_a_step_is_decodes_first_and_prefill_fills_the_rest():
    scheduler = Scheduler(
        CountingMemory(free=1000, slots=8), max_running_requests=8, max_batch_tokens=10
    )
    decoding, prompt = request("decoding", 3, 5), request("prompt", 25, 1)
    scheduler.add(decoding)
    scheduler.schedule()
    decoding.computed, decoding.phase = 3, Phase.DECODING
    decoding.output.append(1)
    scheduler.add(prompt)
    chunks = []
    for _ in range(3):
        step = scheduler.schedule()
        assert step[0].request is decoding
        chunks.append(step[1].count)
        prompt.computed += step[1].count
        decoding.computed += 1
        decoding.output.append(1)
    assert chunks == [9, 9, 7]


def test_ten_thousand_requests_all_end():
    draw = random.Random(0)
    arrivals = {}
    for index in range(10_000):
        arrivals.setdefault(index // 8, []).append(
            request(index, draw.randint(1, 60), draw.randint(1, 4))
        )
    memory = CountingMemory(free=4096, slots=64)
    scheduler = Scheduler(memory, max_running_requests=64, max_batch_tokens=512)
    everyone = [each for group in arrivals.values() for each in group]
    at = finished = 0
    while finished < len(everyone):
        for each in arrivals.get(at, []):
            scheduler.add(each)
        for each in scheduler.schedule():
            each.request.computed += each.count
            if each.request.computed == each.request.length:
                each.request.phase = Phase.DECODING
                each.request.output.append(7)
                if len(each.request.output) == each.request.sampling.max_tokens:
                    each.request.end(Phase.FINISHED)
                    scheduler.remove(each.request)
                    finished += 1
        at += 1
        assert at < 100_000
    assert memory.free == 4096
    assert memory.slots == 64
    assert scheduler.schedule() == []


def test_a_budget_below_the_running_requests_is_refused():
    with pytest.raises(EngineInputError, match="max-batch-tokens: 4 is less than the 8 running"):
        Scheduler(CountingMemory(1, 1), max_running_requests=8, max_batch_tokens=4)


def test_a_request_ends_once():
    each = request("a", 1, 1)
    each.end(Phase.FINISHED)
    with pytest.raises(RuntimeError, match="cannot go from"):
        each.end(Phase.ABORTED)
    with pytest.raises(RuntimeError, match="cannot go from"):
        request("b", 1, 1).end(Phase.DECODING)
