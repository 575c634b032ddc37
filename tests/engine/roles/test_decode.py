"""A decode worker's part, with prefill workers that say anything at any time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.event import Event
from upcurve.engine.execute.fake_device import FakeDevice, known_token
from upcurve.engine.execute.transfers import Expel, Invite, Order, Report, Told
from upcurve.engine.memory.memory import Memory
from upcurve.engine.roles.decode import DecodeRole
from upcurve.engine.roles.links import Answered, Found, Lost
from upcurve.engine.roles.messages import Ask, Cancel, Done, Ended, Hello, Message
from upcurve.engine.schedule.request import Request, SamplingParameters

VOCABULARY = 1000
RANKS = 2
PAGE = 4


@dataclass(eq=False)
class ScriptedLink:
    """A prefill worker that only remembers what it is told."""

    name: str
    session: str = ""
    state: str = "up"
    asked: set[int] = field(default_factory=set)
    asks: dict[int, Ask] = field(default_factory=dict)
    """Those of this session."""
    prompts: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    greeted: list[Hello] = field(default_factory=list)

    def put(self, message: Message) -> str | None:
        if not self.session:
            return None
        if isinstance(message, Ask):
            # Who has given a prompt back, or left it, is not asked for it again.
            assert message.prompt[0] not in self.prompts
            self.prompts.add(message.prompt[0])
            self.asks[message.transfer] = message
        elif isinstance(message, Cancel):
            self.cancelled.add(message.transfer)
        return self.session

    def begin(self, session: str) -> None:
        self.session, self.asks = session, {}

    def greet(self, hello: Hello) -> None:
        self.greeted.append(hello)


class ScriptedLinks:
    def __init__(self, count: int) -> None:
        self.all = [ScriptedLink(f"p{number}", f"p{number}-0") for number in range(count)]

    def choose(self, tried: set[ScriptedLink]) -> ScriptedLink | None:
        up = [each for each in self.all if each.session and each not in tried]
        return min(up, key=lambda each: len(each.asked), default=None)


class Scene:
    """An engine that asks, over a device that knows what every slot holds."""

    def __init__(self, links: int, *, slots: int = 4, tokens: int = 64) -> None:
        self.device = FakeDevice(vocab_size=VOCABULARY)
        self.engine = Engine(
            self.device,
            Memory(max_running_requests=slots, token_capacity=tokens, page_size=PAGE),
            vocab_size=VOCABULARY,
            context_length=64,
            max_running_requests=slots,
            max_batch_tokens=16,
            check_memory=True,
        )
        self.orders: list[Order] = []
        self.role = DecodeRole(b"ours", self.orders.append, RANKS, prefill_below=2)
        self.links = self.role.links = ScriptedLinks(links)  # type: ignore[assignment]
        self.engine.role = self.role
        self.engine.scheduler.elsewhere = self.role.wants
        self.requests: dict[str, Request] = {}
        self.events: dict[str, list[Event]] = {}
        self.exposed: dict[tuple[str, int], tuple[int, set[int]]] = {}
        """Slot and pages that a session may write, by session and transfer."""

    def add(self, prompt: int, output: int) -> None:
        name = str(len(self.requests))
        sampling = SamplingParameters(max_tokens=output, temperature=0, ignore_eos=True)
        self.requests[name] = Request(name, [len(self.requests) + 1] * prompt, sampling)
        self.events[name] = []
        self.engine.add(self.requests[name])

    def take(self, events: list[Event]) -> None:
        for event in events:
            self.events[event.request_id].append(event)

    def step(self) -> None:
        self.take(self.engine.step())
        for link in self.links.all:
            for number, ask in link.asks.items():
                key = (link.session, number)
                if number in link.asked and key not in self.exposed:
                    self.exposed[key] = (ask.slot, set(ask.pages))
        self.check()

    def check(self) -> None:
        """What somebody may write to is nobody's, or that of the request that waits for it."""
        places = [*self.exposed.values()]
        for slot, pages in places:
            owners = [
                each
                for each in self.engine.scheduler.running.values()
                if each.memory is not None
                and (each.memory.slot == slot or pages & set(each.memory.pages))
            ]
            assert all(each.phase.value == "receiving" for each in owners)
        slots = [slot for slot, _ in places]
        assert len(set(slots)) == len(slots)

    def answer(self, link: ScriptedLink, number: int, *, done: bool, unfit: bool = False) -> None:
        """Let a prefill worker say that it is done, or that it has given up."""
        ask = link.asks[number]
        request = next(each for each in self.requests.values() if each.prompt == ask.prompt)
        token = known_token(request, len(request.prompt), VOCABULARY)
        # What the transport has written.
        self.device._slots[ask.slot] = (request.id, len(request.prompt))
        message = Done(number, token) if done else Ended(number, "no", unfit)
        self.exposed.pop((link.session, number), None)
        self.role.tell(Answered(link, message))  # type: ignore[arg-type]

    def lose(self, link: ScriptedLink) -> None:
        session = link.session
        link.begin("")
        self.role.tell(Lost(link, session))  # type: ignore[arg-type]

    def expelled(self, session: str, rank: int) -> None:
        self.role.tell(Told(rank, Report("expelled", session)))

    def finish(self) -> None:
        """Answer everything, and let every request end."""
        for turn in range(1000):
            for link in self.links.all:
                for number in [each for each in link.asked & link.asks.keys() if link.session]:
                    self.answer(link, number, done=turn % 3 > 0)
            pending = [each.session for each in self.orders if isinstance(each, Expel)]
            self.orders.clear()
            for session in pending:
                for key in [each for each in self.exposed if each[0] == session]:
                    del self.exposed[key]
                for rank in range(RANKS):
                    self.expelled(session, rank)
            if not self.engine.has_work:
                break
            self.step()
        for request in self.requests.values():
            events = self.events[request.id]
            assert [bool(each.finish) for each in events].count(True) == 1
            assert events[-1].finish in {"length", "aborted"}
            for number, event in enumerate(each for each in events if each.token is not None):
                position = len(request.prompt) + number
                assert event.token == known_token(request, position, VOCABULARY)
        usage = self.engine.memory.usage()
        assert (usage.pages, usage.slots, self.role.kept) == (0, 0, 0)
        assert not self.role._transfers
        assert not self.role._by_request
        assert not self.role._courses


@settings(max_examples=60)
@given(chance=st.randoms(use_true_random=False), links=st.integers(0, 3))
def test_whatever_prefill_workers_say_each_request_ends_once_with_its_tokens(
    chance: Random, links: int
) -> None:
    scene = Scene(links)
    sessions = itertools.count()
    for _ in range(80):
        asked = [
            (link, number)
            for link in scene.links.all
            for number in sorted(link.asked)
            if link.session and number in link.asks
        ]
        action = chance.choice(
            ["step"] * 6 + ["add"] * 3 + ["answer"] * 4 + ["abort", "lose", "find"]
        )
        if action == "step":
            scene.step()
        elif action == "add":
            scene.add(chance.randint(1, 30), chance.randint(1, 20))
        elif action == "answer" and asked:
            scene.answer(*chance.choice(asked), done=chance.random() < 0.7)
        elif action == "abort" and scene.requests:
            scene.take(scene.engine.abort(chance.choice(sorted(scene.requests))))
        elif action in {"lose", "find"} and links:
            link = chance.choice(scene.links.all)
            if action == "lose" and link.session:
                scene.lose(link)
            elif action == "find" and not link.session:
                link.begin(f"{link.name}-{next(sessions)}-again")
    scene.finish()


def test_memory_is_named_once_the_step_before_has_been_computed() -> None:
    """Its last owner may still be in a step that is on its way."""
    scene = Scene(1, slots=1)
    scene.links.all[0].session = ""
    scene.add(3, 10)
    for _ in range(4):
        scene.step()
    scene.links.all[0].begin("again")
    scene.add(5, 2)
    assert scene.engine.in_flight
    scene.take(scene.engine.abort("0"))
    waited: list[bool] = []
    launched = scene.engine._launched
    assert launched is not None
    wait = type(launched.flight).wait

    def watched(flight: object) -> object:
        waited.append(bool(scene.links.all[0].asks))
        return wait(flight)  # type: ignore[arg-type]

    type(launched.flight).wait = watched  # type: ignore[method-assign,assignment]
    try:
        scene.step()
    finally:
        type(launched.flight).wait = wait  # type: ignore[method-assign]
    assert waited == [False]
    assert len(scene.links.all[0].asks) == 1
    scene.finish()


def test_a_session_begins_with_what_all_ranks_offer() -> None:
    scene = Scene(1)
    link = scene.links.all[0]
    scene.role.tell(Found(link, "new"))  # type: ignore[arg-type]
    scene.step()
    assert scene.orders == [Invite("new")]
    for rank in (1, 0):
        assert not link.greeted
        scene.role.tell(Told(rank, Report("offer", "new", offer=b"%d" % rank)))
        scene.step()
    assert link.greeted == [Hello("new", b"ours", [b"0", b"1"])]


def test_what_waits_for_news_takes_no_time() -> None:
    scene = Scene(1)
    scene.add(5, 2)
    for _ in range(3):
        scene.step()
    assert not scene.engine.has_work
    (number,) = scene.links.all[0].asked
    scene.answer(scene.links.all[0], number, done=True)
    assert scene.engine.has_work
    scene.finish()


def test_prompts_that_do_not_fit_a_worker_are_said_once_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(2)

    def give_back(link: ScriptedLink, *, unfit: bool = True) -> None:
        scene.add(5, 1)
        while not link.asked:
            scene.step()
        (number,) = link.asked
        scene.answer(link, number, done=False, unfit=unfit)
        scene.step()

    first, second = scene.links.all
    for link, other in ((first, second), (first, second), (second, first)):
        session, other.session = other.session, ""
        give_back(link)
        other.session = session
        scene.finish()
    assert [record.args[0] for record in caplog.records] == ["p0", "p1"]  # type: ignore[index]
    assert "that do not fit are only counted, in transfers_failed" in caplog.text
    assert scene.role.counts.failed == 3
    # Anything else is said each time, and a worker that comes back may be another.
    second.session = ""
    give_back(first, unfit=False)
    scene.finish()
    scene.lose(first)
    first.begin("p0-again")
    give_back(first)
    scene.finish()
    assert [record.args[0] for record in caplog.records][2:] == ["p0", "p0"]  # type: ignore[index]
