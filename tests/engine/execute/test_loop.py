import threading
import time

import pytest

from upcurve.engine.build import build_engine
from upcurve.engine.execute.loop import FAILED_STEPS, EngineLoop
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.schedule.request import Request, SamplingParameters

GREEDY = SamplingParameters(max_tokens=8, temperature=0, ignore_eos=True)


class Collector:
    """Takes events on the engine's thread; tests wait for a number of terminal ones."""

    def __init__(self):
        self.events = []
        self.failure = None
        self.steps = []
        self._changed = threading.Condition()

    def deliver(self, events):
        with self._changed:
            self.events += events
            self._changed.notify_all()

    def failed(self, error):
        with self._changed:
            self.failure = error
            self._changed.notify_all()

    def ended(self):
        return {each.request_id: each.finish for each in self.events if each.finish}

    def wait(self, condition):
        with self._changed:
            assert self._changed.wait_for(condition, timeout=60)


@pytest.fixture
def engine(tiny):
    return build_engine(tiny, EngineOptions(threads=1, max_running_requests=2, max_batch_tokens=16))


@pytest.fixture
def collector():
    return Collector()


def start(engine, collector):
    loop = EngineLoop(engine, collector.deliver, collector.failed, collector.steps.append)
    loop.start()
    return loop


def test_tokens_arrive_in_order_and_each_request_ends_once(engine, collector):
    expected = engine.generate([[5, 6], [7], [8, 9, 10]], GREEDY)
    loop = start(engine, collector)
    for name, prompt in (("a", [5, 6]), ("b", [7]), ("c", [8, 9, 10])):
        loop.submit(Request(name, prompt, GREEDY))
    collector.wait(lambda: len(collector.ended()) == 3)
    loop.stop()
    for name, tokens in zip("abc", expected, strict=True):
        mine = [each for each in collector.events if each.request_id == name]
        assert [each.token for each in mine] == tokens
        assert [each.finish for each in mine] == [None] * 7 + ["length"]
    assert loop.counts() == (0, 0)
    # The first prompt is computed alone at least, and each request takes 8 steps.
    assert len(collector.steps) >= 8
    assert all(seconds > 0 for seconds in collector.steps)


@pytest.mark.parametrize("broken", ["abort", "step"])
def test_an_error_outside_a_step_leaves_nobody_waiting(engine, collector, monkeypatch, broken):
    """Whatever breaks, all that was submitted ends, and the failure is told."""

    def break_down(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(engine, broken, break_down)
    loop = EngineLoop(engine, collector.deliver, collector.failed, collector.steps.append)
    for name in "abc":
        loop.submit(Request(name, [1, 2], GREEDY))
    loop.abort("b")
    loop.submit(Request("d", [1, 2], GREEDY))
    loop.start()
    collector.wait(lambda: collector.failure is not None and len(collector.ended()) == 4)
    loop.stop()
    assert sum(bool(each.finish) for each in collector.events) == 4
    assert set(collector.ended().values()) <= {"failed", "aborted"}


def test_an_unusable_request_fails_alone(engine, collector):
    loop = start(engine, collector)
    loop.submit(Request("long", [1] * 300, GREEDY))
    loop.submit(Request("good", [1], GREEDY))
    collector.wait(lambda: len(collector.ended()) == 2)
    loop.stop()
    assert collector.ended() == {"long": "failed", "good": "length"}


def test_abort_and_stop_end_what_is_left(engine, collector, monkeypatch):
    step = engine.step

    def slowly():
        time.sleep(0.05)
        return step()

    # None of 200 tokens ends by itself before it is stopped.
    monkeypatch.setattr(engine, "step", slowly)
    loop = start(engine, collector)
    endless = SamplingParameters(max_tokens=200, temperature=0, ignore_eos=True)
    for name in "abcd":
        loop.submit(Request(name, [3, 4], endless))
    loop.abort("a")
    loop.abort("nobody")
    collector.wait(lambda: "a" in collector.ended())
    loop.stop()
    assert collector.ended() == dict.fromkeys("abcd", "aborted")
    engine.memory.check()
    loop.submit(Request("late", [1], GREEDY))
    assert collector.ended()["late"] == "failed"


def test_an_engine_that_keeps_failing_is_given_up_and_nobody_hangs(engine, collector, monkeypatch):
    def broken(batch, caches):
        raise RuntimeError("device lost")

    monkeypatch.setattr(engine.device.model, "forward", broken)
    loop = start(engine, collector)
    names = [str(index) for index in range(2 * FAILED_STEPS + 4)]
    for name in names:
        loop.submit(Request(name, [1, 2], GREEDY))
    collector.wait(lambda: collector.failure is not None and len(collector.ended()) == len(names))
    assert set(collector.ended().values()) == {"failed"}
    assert sum(bool(each.finish) for each in collector.events) == len(names)
    engine.memory.check()
    loop.stop()
