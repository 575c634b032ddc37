"""The whole engine around a device that computes nothing: life cycles, order, memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.fake_device import FakeDevice, known_token
from upcurve.engine.memory.memory import Memory
from upcurve.engine.schedule.request import Request, SamplingParameters

VOCABULARY = 1000


def engine_of(*, tokens=2048, slots=16, budget=64, check=True, overlap=True, **device):
    return Engine(
        FakeDevice(vocab_size=VOCABULARY, **device),
        Memory(max_running_requests=slots, token_capacity=tokens, page_size=4),
        vocab_size=VOCABULARY,
        end_of_sequence_ids=(0,),
        context_length=tokens,
        max_running_requests=slots,
        max_batch_tokens=budget,
        overlap=overlap,
        check_memory=check,
    )


def expected(request):
    """Return the tokens of a request by the device's own rule, and how it ends."""
    tokens = []
    for index in range(request.sampling.max_tokens):
        token = known_token(request, len(request.prompt) + index, VOCABULARY)
        tokens.append(token)
        if token == 0 and not request.sampling.ignore_eos:
            return tokens, "stop"
    return tokens, "length"


def drain(engine, requests):
    events = {each.id: [] for each in requests}
    while engine.has_work:
        for event in engine.step():
            events[event.request_id].append(event)
    return events


def check_life(request, events):
    tokens, finish = expected(request)
    assert [each.token for each in events] == tokens
    assert [each.finish for each in events] == [None] * (len(tokens) - 1) + [finish]


@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 60), st.booleans()), min_size=1, max_size=30
    ),
    slots=st.integers(1, 8),
    budget=st.integers(8, 80),
    tokens=st.integers(120, 400),
    overlap=st.booleans(),
    seed=st.integers(0, 9),
)
def test_every_token_is_the_devices_whatever_is_preempted(
    sizes, slots, budget, tokens, overlap, seed
):
    engine = engine_of(tokens=tokens, slots=slots, budget=budget, overlap=overlap)
    draw = random.Random(seed)
    requests = [
        Request(
            str(index),
            [draw.randrange(VOCABULARY) for _ in range(prompt)],
            SamplingParameters(max_tokens=output, temperature=0, ignore_eos=ignore),
        )
        for index, (prompt, output, ignore) in enumerate(sizes)
    ]
    for each in requests:
        engine.add(each)
    events = drain(engine, requests)
    for each in requests:
        check_life(each, events[each.id])
    assert engine.memory.usage().pages == engine.memory.usage().slots == 0


def test_ten_thousand_requests_in_little_memory():
    draw = random.Random(1)
    engine = engine_of(tokens=4096, slots=64, budget=512, check=False)
    requests = [
        Request(
            str(index),
            [draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 100))],
            SamplingParameters(max_tokens=draw.randint(1, 60), temperature=0),
        )
        for index in range(10_000)
    ]
    events = {each.id: [] for each in requests}
    aborted = set()
    left = iter(requests)
    steps = 0
    while True:
        for each in (each for _, each in zip(range(20), left, strict=False)):
            engine.add(each)
        if not engine.has_work:
            break
        for event in engine.step():
            events[event.request_id].append(event)
        steps += 1
        if steps % 7 == 0 and engine.unfinished:
            gone = draw.choice(engine.unfinished)
            events[gone] += engine.abort(gone)
            aborted.add(gone)
        if steps % 500 == 0:
            engine.check()
    assert engine.preemptions > 0
    for each in requests:
        mine = events[each.id]
        assert [event.finish is not None for event in mine] == [False] * (len(mine) - 1) + [True]
        if each.id in aborted:
            assert mine[-1].finish == "aborted"
            assert [event.token for event in mine[:-1]] == expected(each)[0][: len(mine) - 1]
        else:
            check_life(each, mine)
    engine.check()
    assert engine.memory.usage().pages == 0


def test_the_next_step_is_launched_before_the_last_one_is_waited_for():
    engine = engine_of(step_seconds=0.001)
    request = Request("a", [5], SamplingParameters(max_tokens=50, temperature=0, ignore_eos=True))
    engine.add(request)
    assert engine.step() == []
    launched = []
    launch = engine.device.launch

    def recording(step):
        # The token of the step before is not on the host yet.
        launched.append((step[0].begin, len(request.output)))
        return launch(step)

    engine.device.launch = recording
    for index in range(10):
        (event,) = engine.step()
        assert event.token == known_token(request, 1 + index, VOCABULARY)
    assert launched == [(1 + index, index) for index in range(10)]


def test_check_finds_memory_that_is_not_the_requests():
    engine = engine_of()
    sampling = SamplingParameters(max_tokens=9, temperature=0, ignore_eos=True)
    for name in "ab":
        engine.add(Request(name, [1, 2, 3], sampling))
    engine.step()
    first, second = engine.scheduler.running.values()
    first.memory.slot, second.memory.slot = second.memory.slot, first.memory.slot
    with pytest.raises(RuntimeError, match="slot 1 holds"):
        engine.check()
