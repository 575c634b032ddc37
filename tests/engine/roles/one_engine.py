"""The engine whose tokens prefill and decode workers have to give."""

from __future__ import annotations

from pathlib import Path

from upcurve.engine.build import build_engine
from upcurve.engine.execute.event import TokenLogprobs
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.schedule.request import Request, SamplingParameters


class OneEngine:
    """Prefills and decodes itself, in this process."""

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        self._engine = build_engine(folder, options)

    def generate(
        self, prompts: list[list[int]], samplings: list[SamplingParameters]
    ) -> tuple[list[list[int]], list[TokenLogprobs | None]]:
        """Return the output of each prompt, and the log probabilities of its first token."""
        requests = [
            Request(str(number), prompt, each)
            for number, (prompt, each) in enumerate(zip(prompts, samplings, strict=True))
        ]
        first: dict[str, TokenLogprobs | None] = {}
        for request in requests:
            self._engine.add(request)
        while self._engine.has_work:
            for event in self._engine.step():
                first.setdefault(event.request_id, event.logprobs)
        return [each.output for each in requests], [first[each.id] for each in requests]
