"""A prefill worker's part, with ranks that report and decode workers that act in any order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.execute.engine import Engine
from upcurve.engine.execute.fake_device import FakeDevice, known_token
from upcurve.engine.execute.transfers import Cancel, Close, Open, Order, Report, Told
from upcurve.engine.memory.memory import Memory
from upcurve.engine.roles import messages
from upcurve.engine.roles.messages import Ask, Done, Ended, Hello, Message
from upcurve.engine.roles.peers import Asked, Cancelled, Greeted, Parted, Peer
from upcurve.engine.roles.prefill import PrefillRole
from upcurve.engine.schedule.request import SamplingParameters

VOCABULARY = 1000
RANKS = 2
SAMPLING = SamplingParameters(max_tokens=9, temperature=0)


@dataclass(eq=False)
class ScriptedConnection:
    said: list[Message] = field(default_factory=list)
    peer: Any = None

    def put(self, message: Message) -> None:
        # One that has to expel the session must not take this for the end of it.
        assert not (isinstance(message, Ended) and self.peer.parted)
        self.said.append(message)


class ScriptedPeers:
    def __init__(self) -> None:
        self.welcomed: list[Peer] = []
        self.dismissed: list[Peer] = []
        self.refused: list[Peer] = []

    def welcome(self, peer: Peer) -> None:
        self.welcomed.append(peer)

    def dismiss(self, peer: Peer) -> None:
        assert not peer.transfers
        self.dismissed.append(peer)

    def refuse(self, peer: Peer, _: object) -> None:
        self.refused.append(peer)


class Scene:
    def __init__(self) -> None:
        self.engine = Engine(
            FakeDevice(vocab_size=VOCABULARY),
            Memory(max_running_requests=3, token_capacity=96, page_size=4),
            vocab_size=VOCABULARY,
            context_length=64,
            max_running_requests=3,
            max_batch_tokens=16,
            check_memory=True,
        )
        self.orders: list[Order] = []
        self.role = PrefillRole(self._order, RANKS)
        self.peers = self.role.peers = ScriptedPeers()  # type: ignore[assignment]
        self.engine.role = self.role
        self.owed: list[Told] = []
        """What ranks have to report, sooner or later."""
        self.reading: dict[str, set[int]] = {}
        """Ranks that read a transfer's memory, by its name."""
        self.memories: dict[str, Any] = {}
        self.asked: dict[tuple[Peer, int], Ask] = {}

    def _order(self, order: Order) -> None:
        self.orders.append(order)
        for rank in range(RANKS):
            if isinstance(order, Open):
                self.owed.append(Told(rank, Report("opened", order.session)))
            elif isinstance(order, Cancel):
                # Once each, if it has not been reported before.
                self.owed.append(Told(rank, Report("ended", order.transfer)))

    def step(self) -> None:
        self.engine.step()
        for name, transfer in self.role._transfers.items():
            request = transfer.request
            # A rank reads from the first chunk on, until it reports.
            if request.computed and name not in self.reading:
                self.reading[name] = set(range(RANKS))
                self.memories[name] = request.memory
            if transfer.token is not None and transfer.memory is None:
                for rank in self.reading[name]:
                    self.owed.append(Told(rank, Report("ended", name)))
        for name, ranks in self.reading.items():
            assert not ranks or not self.memories[name].released

    def peer(self, number: int) -> Peer:
        connection = ScriptedConnection()
        connection.peer = peer = Peer(f"d{number}", connection)  # type: ignore[arg-type]
        self.role.tell(Greeted(peer, Hello(f"session-{number}", b"", [b""])))
        return peer

    def ask(self, peer: Peer, number: int, length: int) -> None:
        ask = Ask(number, [number % 100 + 1] * length, SAMPLING, 0, [1])
        if peer in self.peers.welcomed and peer not in self.peers.dismissed:
            self.asked[peer, number] = ask
        self.role.tell(Asked(peer, ask))

    def report(self, told: Told) -> None:
        self.owed.remove(told)
        if told.report.kind == "ended":
            self.reading.get(told.report.name, set()).discard(told.rank)
        self.role.tell(told)


@settings(max_examples=60)
@given(chance=st.randoms(use_true_random=False))
def test_whatever_happens_memory_is_free_once_nobody_reads_it(chance: Random) -> None:
    scene, numbers, sessions = Scene(), itertools.count(1), itertools.count()
    peers = [scene.peer(next(sessions))]
    gone: set[Peer] = set()
    for _ in range(100):
        here = [each for each in peers if each not in gone]
        action = chance.choice(
            ["step"] * 6 + ["ask"] * 4 + ["report"] * 6 + ["cancel", "come", "go", "break"]
        )
        if action == "step":
            scene.step()
        elif action == "ask" and here:
            scene.ask(chance.choice(here), next(numbers), chance.randint(1, 70))
        elif action == "report" and scene.owed:
            scene.report(chance.choice(scene.owed))
        elif action == "cancel" and scene.asked:
            peer, number = chance.choice(list(scene.asked))
            scene.role.tell(Cancelled(peer, number))
        elif action == "come":
            peers.append(scene.peer(next(sessions)))
        elif action == "go" and here and chance.random() < 0.3:
            gone.add(chosen := chance.choice(here))
            scene.role.tell(Parted(chosen, "gone"))
        elif action == "break" and scene.owed and chance.random() < 0.3:
            told = chance.choice(scene.owed)
            scene.owed.remove(told)
            scene.reading.get(told.report.name, set()).discard(told.rank)
            scene.role.tell(Told(told.rank, Report(told.report.kind, told.report.name, "broken")))
    while scene.owed or scene.engine.has_work:
        if scene.owed:
            scene.report(scene.owed[0])
        scene.step()
    usage = scene.engine.memory.usage()
    assert (usage.slots, usage.pages, scene.role.kept) == (0, 0, 0)
    assert not scene.role._transfers
    for peer in peers:
        # One that was dropped is dismissed once, when nothing is on its way to it.
        assert scene.peers.dismissed.count(peer) == peer.parted
        assert not peer.transfers
        if peer in gone:
            assert peer.parted
    closed = [order.session for order in scene.orders if isinstance(order, Close)]
    assert len(closed) == len(set(closed)) == sum(each.parted for each in peers)
    for (peer, number), ask in scene.asked.items():
        answers = [
            each
            for each in peer.connection.said  # type: ignore[attr-defined]
            if isinstance(each, Done | Ended) and each.transfer == number
        ]
        assert len(answers) == 1 or (peer.parted and not answers)
        for answer in answers:
            if isinstance(answer, Done):
                expected = known_token_of(ask)
                assert answer.token == expected


def known_token_of(ask: Ask) -> int:
    from upcurve.engine.schedule.request import Request

    return known_token(Request("", ask.prompt, SAMPLING), len(ask.prompt), VOCABULARY)


def with_a_peer() -> tuple[Scene, Peer]:
    """Return a scene with one decode worker that may ask."""
    scene = Scene()
    peer = scene.peer(0)
    scene.step()
    for told in list(scene.owed):
        scene.report(told)
    scene.step()
    return scene, peer


def test_what_is_complete_is_said_before_the_engine_looks() -> None:
    scene, peer = with_a_peer()
    scene.ask(peer, 1, 5)
    scene.step()
    scene.step()
    first, second = list(scene.owed)
    scene.report(first)
    said: list[Message] = peer.connection.said  # type: ignore[attr-defined]
    assert not [each for each in said if isinstance(each, messages.Done)]
    scene.report(second)
    assert [type(each) for each in said] == [messages.Done]
    assert scene.engine.memory.usage().slots == 1
    # A cancellation that comes too late changes nothing.
    scene.role.tell(Cancelled(peer, 1))
    scene.step()
    assert scene.engine.memory.usage().slots == 0
    assert len(said) == 1
    assert (scene.role.counts.done, scene.role.counts.cancelled) == (1, 0)


def test_a_prompt_that_does_not_fit_is_given_back_with_the_reason_alone() -> None:
    scene, peer = with_a_peer()
    scene.ask(peer, 1, 64)
    scene.step()
    reason = "prompt: 64 tokens and max_tokens 1 are more than the context of 64"
    assert peer.connection.said == [Ended(1, reason, unfit=True)]  # type: ignore[attr-defined]
