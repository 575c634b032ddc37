import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.errors import EngineInputError
from upcurve.engine.memory.memory import Memory
from upcurve.engine.schedule.request import TERMINAL, Phase, Request, SamplingParameters
from upcurve.engine.schedule.scheduler import Scheduler

PAGE = 4


def request(name, prompt, output):
    return Request(str(name), [1] * prompt, SamplingParameters(max_tokens=output))


def new(*, tokens, slots, budget):
    memory = Memory(max_running_requests=slots, token_capacity=tokens, page_size=PAGE)
    return memory, Scheduler(memory, max_running_requests=slots, max_batch_tokens=budget)


def arrive(step):
    """Play the engine's part: the tokens of a step have come back."""
    ended = []
    for each in step:
        request = each.request
        if each.draws:
            request.pending -= 1
        if request.phase in TERMINAL or not each.draws:
            continue
        request.output.append(7)
        if len(request.output) == request.sampling.max_tokens:
            ended.append(request)
    return ended


def finish(scheduler, ended):
    for each in ended:
        each.end(Phase.FINISHED)
        scheduler.remove(each)


def run(memory, scheduler, arrivals, *, aborts=frozenset(), budget, ahead):
    """Feed arrivals {step: requests} and return the steps.

    With `ahead` a step is scheduled before the tokens of the one before it have come back.
    """
    steps = []
    flying = []
    seen = {}
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
        counts = [each.count > 1 for each in step]
        assert counts == sorted(counts)
        for each in step:
            # A sequence goes on exactly where it was, or from its beginning.
            assert each.begin in (seen.get(each.request.id, 0), 0)
            seen[each.request.id] = each.begin + each.count
            assert each.request.memory.capacity >= each.begin + each.count
            known = len(each.request.prompt) + len(each.request.output)
            assert each.begin + each.count <= known + each.draws
        memory.check()
        if ahead:
            finish(scheduler, arrive(flying))
            flying = step
        else:
            finish(scheduler, arrive(step))
        steps.append([(each.request.id, each.begin, each.count, each.draws) for each in step])
        index += 1
        assert index < 200_000, "a request starves"
    return steps


sizes = st.tuples(st.integers(1, 40), st.integers(1, 8))


@given(
    arriving=st.lists(st.tuples(st.integers(0, 10), sizes), min_size=1, max_size=25),
    slots=st.integers(1, 6),
    budget=st.integers(6, 30),
    tokens=st.integers(48, 120),
    aborts=st.sets(st.tuples(st.integers(0, 24), st.integers(0, 20)), max_size=8),
    ahead=st.booleans(),
)
def test_every_request_ends_once_within_the_budget_and_the_order_repeats(
    arriving, slots, budget, tokens, aborts, ahead
):
    def build():
        arrivals = {}
        for index, (at, (prompt, output)) in enumerate(arriving):
            arrivals.setdefault(at, []).append(request(index, prompt, output))
        memory, scheduler = new(tokens=tokens, slots=slots, budget=budget)
        named = {(str(index), at) for index, at in aborts}
        steps = run(memory, scheduler, arrivals, aborts=named, budget=budget, ahead=ahead)
        memory.check()
        assert memory.usage().pages == memory.usage().slots == 0
        assert not scheduler.waiting
        assert not scheduler.running
        done = [each for group in arrivals.values() for each in group]
        assert all(each.phase in (Phase.FINISHED, Phase.ABORTED) for each in done)
        assert all(each.pending == 0 for each in done if each.phase is Phase.FINISHED)
        return steps

    assert build() == build()


def test_first_come_first_served_and_the_head_is_not_overtaken():
    _, scheduler = new(tokens=20, slots=4, budget=64)
    first, large, small = request("first", 8, 8), request("large", 15, 1), request("small", 1, 1)
    for each in (first, large, small):
        scheduler.add(each)
    assert [each.request.id for each in scheduler.schedule()] == ["first"]
    assert list(scheduler.waiting.values()) == [large, small]


def test_what_has_ended_is_kept_nowhere():
    """Also behind a head that waits: clients that give up must not fill the memory."""
    _, scheduler = new(tokens=8, slots=2, budget=8)
    running, head = request("running", 7, 1), request("head", 4, 4)
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
    _, scheduler = new(tokens=1000, slots=8, budget=10)
    decoding, prompt = request("decoding", 3, 5), request("prompt", 25, 1)
    scheduler.add(decoding)
    arrive(scheduler.schedule())
    scheduler.add(prompt)
    chunks = []
    for _ in range(3):
        step = scheduler.schedule()
        assert step[0].request is decoding
        chunks.append(step[1].count)
        arrive(step)
    assert chunks == [9, 9, 7]


def test_short_prompts_do_not_wait_for_a_long_one():
    _, scheduler = new(tokens=1000, slots=8, budget=40)
    long, short, second = request("long", 200, 1), request("short", 8, 1), request("2nd", 100, 1)
    for each in (long, short, second):
        scheduler.add(each)
    step = {each.request.id: each.count for each in scheduler.schedule()}
    # The second long prompt is not begun: prompts are not cut into crumbs.
    assert step == {"long": 32, "short": 8}
    assert {each.request.id: each.count for each in scheduler.schedule()} == {"long": 40}


def test_the_latest_gives_way_and_comes_back_first_with_all_its_tokens():
    memory, scheduler = new(tokens=24, slots=4, budget=64)
    first, second, third = (request(name, 6, 12) for name in ("first", "second", "third"))
    for each in (first, second, third):
        scheduler.add(each)
    flying = scheduler.schedule()
    assert len(flying) == 3
    while not scheduler.preemptions:
        step = scheduler.schedule()
        arrive(flying)
        flying = step
    assert list(scheduler.running) == ["first", "second"]
    assert list(scheduler.waiting) == ["third"]
    assert third.memory is None
    assert third.output
    known = third.length
    while third.phase is Phase.WAITING:
        step = scheduler.schedule()
        finish(scheduler, arrive(flying))
        flying = step
    again = next(each for each in flying if each.request is third)
    assert (again.begin, again.count, again.draws) == (0, known, True)
    while third.phase not in TERMINAL:
        step = scheduler.schedule()
        finish(scheduler, arrive(flying))
        flying = step
    assert all(len(each.output) == 12 for each in (first, second, third))
    memory.check()


def test_ten_thousand_requests_all_end():
    draw = random.Random(0)
    arrivals = {}
    for index in range(10_000):
        arrivals.setdefault(index // 8, []).append(
            request(index, draw.randint(1, 60), draw.randint(1, 40))
        )
    memory, scheduler = new(tokens=1024, slots=64, budget=2048)
    everyone = [each for group in arrivals.values() for each in group]
    at = finished = 0
    flying = []
    while finished < len(everyone):
        for each in arrivals.get(at, []):
            scheduler.add(each)
        step = scheduler.schedule()
        ended = arrive(flying)
        finish(scheduler, ended)
        finished += len(ended)
        flying = step
        at += 1
        assert at < 100_000
    assert scheduler.preemptions > 0
    assert memory.usage().pages == memory.usage().slots == 0
    assert scheduler.schedule() == []


def test_a_budget_below_the_running_requests_is_refused():
    with pytest.raises(EngineInputError, match="max-batch-tokens: 4 is less than the 8 running"):
        new(tokens=8, slots=8, budget=4)


def test_a_request_ends_once():
    each = request("a", 1, 1)
    each.end(Phase.FINISHED)
    with pytest.raises(RuntimeError, match="cannot go from"):
        each.end(Phase.ABORTED)
    with pytest.raises(RuntimeError, match="cannot go from"):
        request("b", 1, 1).end(Phase.DECODING)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    budget=st.integers(4, 30),
)
def test_of_whole_prompts_only_the_first_of_a_step_is_cut(lengths, budget):
    memory = Memory(max_running_requests=4, token_capacity=200, page_size=PAGE)
    scheduler = Scheduler(
        memory, max_running_requests=4, max_batch_tokens=budget, whole_prompts=True
    )
    requests = [request(number, length, 1) for number, length in enumerate(lengths)]
    for each in requests:
        scheduler.add(each)
    order = []
    while any(each.phase not in TERMINAL for each in requests):
        step = scheduler.schedule()
        assert 0 < sum(each.count for each in step) <= budget
        first = min(int(each.request.id) for each in step)
        assert all(each.draws for each in step if int(each.request.id) > first)
        assert all(each.begin == 0 for each in step if int(each.request.id) > first)
        order += [int(each.request.id) for each in step if each.draws]
        finish(scheduler, arrive(step))
    assert sorted(order) == list(range(len(lengths)))
    memory.check()
