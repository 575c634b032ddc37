"""Many requests at once over several ranks and workers, some of them cancelled or cut off."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import pytest

from tests.engine.transfer.described import shapes_of
from tests.engine.transfer.engines import PAGE_SIZE, Ranks, Reports
from upcurve.engine.transfer.receiver import Receiver
from upcurve.engine.transfer.sender import CANCELLED, Part, Sender

SIZES = {
    "shapes": shapes_of(linear_num_key_heads=4, linear_num_value_heads=8),
    "slots": 12,
    "pages": 60,
}
REQUESTS, PAGES_EACH = 12, 5


def requests(chance: random.Random, session: str) -> list[Part]:
    """Requests that own all of a worker's memory: each some pages and a slot, in random order."""
    pages = chance.sample(range(1, 61), 60)
    slots = chance.sample(range(REQUESTS), REQUESTS)
    return [
        Part(
            *(f"{session}-{number}", session, number),
            [PAGES_EACH * number + index + 1 for index in range(PAGES_EACH)],
            *(slots[number], pages[PAGES_EACH * number : PAGES_EACH * (number + 1)]),
            first=0,
            count=chance.randint(1, PAGES_EACH * PAGE_SIZE),
            last=True,
        )
        for number in range(REQUESTS)
    ]


def wipe(ranks: Ranks, part: Part) -> None:
    """Take the memory of a request for something else."""
    for caches in (ranks.whole, *ranks.caches):
        caches.kv[:, :, part.remote_pages] = 0
        caches.recurrent[:, part.remote_slot] = 0
        caches.convolution[:, part.remote_slot] = 0


@pytest.mark.parametrize("way", ["tcp", "copy"])
@pytest.mark.parametrize("seed", range(3))
def test_each_is_reported_once_and_is_whole_or_writes_no_more(way: str, seed: int) -> None:
    chance = random.Random(seed)
    source, reports = Ranks(2, seed=seed, **SIZES), Reports()
    senders = [
        Sender(caches, source.description, rank, reports)
        for rank, caches in enumerate(source.caches)
    ]
    workers = {"one": Ranks(1, seed=7, **SIZES), "four": Ranks(4, seed=8, **SIZES)}
    receivers = {
        name: [
            Receiver(caches, PAGE_SIZE, rank, "127.0.0.1", way)  # type: ignore[arg-type]
            for rank, caches in enumerate(ranks.caches)
        ]
        for name, ranks in workers.items()
    }
    for name, ranks in workers.items():
        for sender in senders:
            offers = [receiver.offer() for receiver in receivers[name]]
            sender.connect(name, ranks.description, offers, way)  # type: ignore[arg-type]
    waiting = [part for name in workers for part in requests(chance, name)]
    chance.shuffle(waiting)
    begun: dict[str, Part] = {}
    running: dict[str, tuple[Part, int]] = {}
    cut = False
    for number in range(200):
        while waiting and len(running) < 6:
            part = waiting.pop()
            running[part.transfer] = part, 0
            begun[part.transfer] = part
        if not running:
            break
        parts = []
        for name, (part, first) in list(running.items()):
            count = min(chance.randint(1, 7), part.count - first)
            last = first + count == part.count
            parts.append(replace(part, first=first, count=count, last=last))
            running[name] = part, first + count
            if last:
                del running[name]
        launched = [sender.step(parts) for sender in senders]
        # It ends in the middle of a step as well as between two.
        middle = chance.randint(0, 4)
        for layer in range(5):
            if layer == middle and number % 3 == 0:
                name = chance.choice(list(running) or list(begun))
                running.pop(name, None)
                for sender in senders:
                    sender.cancel(name)
            for outgoing in launched:
                if outgoing is not None and layer < 4:
                    outgoing.after(layer)
        if number >= 6 and not cut and any(part.session == "four" for part, _ in running.values()):
            cut = True
            for receiver in receivers["four"]:
                receiver.expel("four", lambda: None)
            # Some of its requests are told of that between two of their steps.
            time.sleep(0.02)
    # What was cancelled in its last step but after it has nothing more to report.
    found = {name: reports.wait(name, 2) for name in begun}
    gone = [threading.Event() for _ in receivers["four"]]
    for receiver, event in zip(receivers["four"], gone, strict=True):
        receiver.expel("four", event.set)
    assert all(event.wait(60) for event in gone)
    kinds = set()
    for name, errors in found.items():
        part, ranks = begun[name], workers[begun[name].session]
        if errors == [None, None]:
            ranks.expect(source, part, tokens=part.count)
            kinds.add("done")
        else:
            # Somebody else may have its memory from now on.
            wipe(ranks, part)
            kinds.add(CANCELLED if CANCELLED in errors else "broken")
    for sender in senders:
        sender.close()
    for ranks in workers.values():
        ranks.check()
    source.check()
    for name, errors in reports.errors.items():
        # Parts that came after their session broke are reported again.
        assert len(errors) == 2 or (begun[name].session == "four" and None not in errors[2:])
    assert kinds == {"done", CANCELLED, "broken"}
    for each in receivers.values():
        for receiver in each:
            receiver.close()
