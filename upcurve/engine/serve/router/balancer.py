"""Which replica gets a request: that which knows its beginning, unless it has much more to do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

CHARACTERS, TOKENS = 256, 64
"""Of a prompt that are hashed at a time, of texts and of token ids."""
REMEMBERED = 2**16
"""Pieces of prompts whose replica is known; 64 tokens each."""
RATIO, SLACK = 1.5, 4
"""A replica that knows a prompt gets it, unless it has more open requests than `RATIO` times the
least of all and `SLACK`."""


class Balancer:
    """Remembers which replica has seen which beginning of a prompt."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, str] = OrderedDict()
        self._turn = 0

    def choose(self, pieces: Sequence[int], loads: Mapping[str, int]) -> str:
        """Choose a replica, and remember it for all pieces.

        Args:
            pieces: of the prompt, as `prompt_pieces` returns.
            loads: open requests of each replica that may be chosen; one at least.
        """
        least = min(loads.values())
        chosen = next(
            (
                name
                for piece in reversed(pieces)
                if (name := self._known.get(piece, "")) in loads
                and loads[name] <= RATIO * least + SLACK
            ),
            None,
        )
        if chosen is None:
            idle = [name for name, load in loads.items() if load == least]
            chosen = idle[self._turn % len(idle)]
            self._turn += 1
        for piece in pieces:
            self._known[piece] = chosen
            self._known.move_to_end(piece)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return chosen


def prompt_pieces(body: bytes) -> list[int]:
    """Return a hash for each beginning of a request's prompt, the shortest first.

    Equal hashes mean equal beginnings, of whole pieces. What is no prompt has none.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    if not isinstance(content, dict):
        return []
    prompt: Any = content.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(content.get("messages"), list):
        prompt = orjson.dumps(content["messages"]).decode()
    if not isinstance(prompt, str | list):
        return []
    size = CHARACTERS if isinstance(prompt, str) else TOKENS
    hashes, before = [], 0
    for start in range(0, len(prompt) - size + 1, size):
        piece = prompt[start : start + size]
        before = hash((before, piece if isinstance(piece, str) else orjson.dumps(piece)))
        hashes.append(before)
    return hashes
