"""A task asked of a server at one concurrency, and what it came to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upcurve.accuracy.answers import AnswersFile
from upcurve.accuracy.asking import Asker, Reply
from upcurve.accuracy.proportions import wilson
from upcurve.accuracy.scoring import METRICS, Metric, extract, is_right
from upcurve.accuracy.task import Prompt, Task
from upcurve.errors import InputError
from upcurve.load.target import Target

LOOK_S = 0.25
"""Seconds between two calls of who watches."""

MOST_UNREACHED = 8
"""Items in a row, for each stream, that find no server before an evaluation is given up."""

FIRST_GUESS = 4.0
"""Characters of a token, until the server has counted some."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a task is asked."""

    concurrency: int
    """Questions in flight, closed loop."""
    context: int | None = None
    """Tokens that prompts are brought up to with further examples; None: as the task has them."""
    timeout_s: float = 600.0
    """Seconds that one try may take."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How far an evaluation is."""

    ended: int
    """Items with an answer, those of an earlier run included."""
    of: int
    asked: int
    """Items that ended in this run."""
    elapsed_s: float

    @property
    def left_s(self) -> float | None:
        """Seconds that are left, at the pace so far; None before the first answer."""
        return self.elapsed_s / self.asked * (self.of - self.ended) if self.asked else None


Watch = Callable[[Asked], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The answers to a task, judged."""

    n: int
    right: dict[Metric, dict[str, bool]]
    """Metric -> item -> whether its answer is right; one without an answer is wrong."""
    failed: int
    """Items without an answer."""
    problem: str | None
    """What was wrong with the first of these; None where there is none."""
    truncated: int
    """Answers that ran into the limit of output tokens."""
    prompt_tokens: tuple[float, int] | None
    """Mean and largest, as the server counts; None where it does not."""

    def score(self, metric: Metric) -> float:
        """Return the share of right answers."""
        return self.count(metric) / self.n

    def count(self, metric: Metric) -> int:
        """Return the number of right answers."""
        return sum(self.right[metric].values())

    def interval(self, metric: Metric) -> tuple[float, float]:
        """Return Wilson's 95 % interval of the share."""
        return wilson(self.count(metric), self.n)

    @classmethod
    def of(cls, task: Task, answers: Mapping[str, Mapping[str, Any]]) -> Evaluation:
        """Judge the answers that were kept, by item."""
        given = [answers.get(item.id, {}) for item in task.items]
        counted = [each["prompt_tokens"] for each in given if each.get("prompt_tokens")]
        return cls(
            n=len(task.items),
            right={
                metric: {
                    item.id: each.get("answer") is not None
                    and is_right(each["answer"], item.answer, metric)
                    for item, each in zip(task.items, given, strict=True)
                }
                for metric in METRICS
            },
            failed=sum(each.get("answer") is None for each in given),
            problem=next((each["detail"] for each in given if each.get("detail")), None),
            truncated=sum(each.get("finish_reason") == "length" for each in given),
            prompt_tokens=(sum(counted) / len(counted), max(counted)) if counted else None,
        )


def evaluate(
    target: Target, task: Task, setting: Setting, file: AnswersFile, watch: Watch | None = None
) -> Evaluation:
    """Ask what the file lacks, keep every answer at once, and judge them all.

    Args:
        target: the server; questions are completions or chats, as its endpoint says.
        task: what is asked.
        setting: how.
        file: where answers are kept; items that it has an answer to are not asked again.
        watch: called about four times a second; what it raises ends the evaluation.

    Raises:
        InputError: nothing answers, or no longer, the server refuses the first question, or the
            disk is full.
    """
    asyncio.run(_Run(target, task, setting, file, watch).ask_all())
    return Evaluation.of(task, file.answers)


class _Run:
    """One evaluation in its event loop."""

    def __init__(
        self, target: Target, task: Task, setting: Setting, file: AnswersFile, watch: Watch | None
    ) -> None:
        self._target, self._task, self._setting, self._file = target, task, setting, file
        self._watch = watch
        kept = file.answers
        self._before = {key for key, each in kept.items() if each.get("answer") is not None}
        self._asked = 0
        self._unreached = 0
        self._first_taken = asyncio.Event()

    async def ask_all(self) -> None:
        missing = [
            number for number, item in enumerate(self._task.items) if item.id not in self._before
        ]
        if not missing:
            return
        with Asker(self._target, stop=self._task.stop, timeout_s=self._setting.timeout_s) as asker:
            prompts = await self._prompts(asker)
            queue = iter(missing)
            streams = min(self._setting.concurrency, len(missing))
            work = asyncio.gather(
                *(self._stream(asker, prompts, queue, missing[0]) for _ in range(streams))
            )
            started = asyncio.get_running_loop().time()
            try:
                while not (await asyncio.wait({work}, timeout=LOOK_S))[0]:
                    self._tell(asyncio.get_running_loop().time() - started)
                await work
                self._tell(asyncio.get_running_loop().time() - started)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def _prompts(self, asker: Asker) -> Sequence[Prompt]:
        """Return all prompts, of the length that is asked for as the server counts it."""
        plain = self._task.prompts()
        tokens = await asker.try_out(plain[0])
        context = self._setting.context
        if context is None or (tokens is not None and tokens >= context):
            return plain
        characters = FIRST_GUESS * context
        if tokens:
            characters = context * len(plain[0].text) / tokens
        longer = self._task.prompts(int(characters))
        counted = await asker.try_out(longer[0])
        if not counted:
            return longer
        return self._task.prompts(int(context * len(longer[0].text) / counted))

    async def _stream(
        self, asker: Asker, prompts: Sequence[Prompt], queue: Iterator[int], first: int
    ) -> None:
        for number in queue:
            ask = asker.ask_first if number == first else asker.ask
            reply = await ask(prompts[number], self._task.max_tokens)
            if number == first:
                self._first_taken.set()
            elif reply.failure == "http_4xx":
                # Where the first one is refused as well nothing is kept.
                await self._first_taken.wait()
            self._check_reached(reply)
            self._file.add(self._kept(number, prompts[number], reply))
            self._asked += 1

    def _check_reached(self, reply: Reply) -> None:
        """Give up where the server is gone: each item would wait through all its tries."""
        self._unreached = self._unreached + 1 if reply.failure == "connect" else 0
        if self._unreached >= MOST_UNREACHED * self._setting.concurrency:
            problem = f"no server answers at {self._target.origin} any more"
            raise InputError("base-url", problem, "start it again, and go on with --resume")

    def _kept(self, number: int, prompt: Prompt, reply: Reply) -> dict[str, Any]:
        """Return what is kept of one answer."""
        item = self._task.items[number]
        judged: dict[str, Any] = {}
        if reply.text is not None:
            for metric in METRICS:
                judged[metric] = {
                    "extracted": extract(reply.text, metric),
                    "right": is_right(reply.text, item.answer, metric),
                }
        return {
            "id": item.id,
            "answer": reply.text,
            "target": item.target,
            **judged,
            "prompt_sha256": hashlib.sha256(prompt.text.encode()).hexdigest(),
            "prompt_tokens": reply.prompt_tokens,
            "output_tokens": reply.output_tokens,
            "finish_reason": reply.finish_reason,
            "seconds": round(reply.seconds, 6),
            "failure": reply.failure,
            "detail": reply.detail,
        }

    def _tell(self, elapsed_s: float) -> None:
        if self._watch is not None:
            total = len(self._task.items)
            answered = len(self._before) + self._asked
            self._watch(Asked(answered, total, self._asked, elapsed_s))
