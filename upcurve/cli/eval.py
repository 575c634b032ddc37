"""`upcurve eval`: questions with known answers to a running server, and a gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console

from upcurve.accuracy.answers import AnswersFile
from upcurve.accuracy.evaluation import Setting, evaluate
from upcurve.accuracy.gate import CONFIDENCE, Gate, Minimum, NonInferiority, Reference
from upcurve.accuracy.outcome import FOLDER, outcome, reference_of
from upcurve.accuracy.scoring import METRICS, Metric
from upcurve.accuracy.task import NAMES, Task, load_task
from upcurve.cli.eval_view import AskedView, eval_table
from upcurve.cli.options import FiniteRange, NumberList, json_option, store_option
from upcurve.cli.tables import print_table
from upcurve.errors import InputError
from upcurve.load.target import Target, environment_proxy
from upcurve.records.store import Store
from upcurve.sweep.interruption import sigterm_interrupts

_COUNT = click.IntRange(min=1)
_MOST_TOKENS = 2**31 - 1
"""As in recipes; a store keeps no number beyond 64 bits."""
_SHARE = FiniteRange(min=0, max=1, min_open=True)


@click.command("eval")
@click.option("--base-url", required=True, metavar="URL", help="E.g. http://127.0.0.1:8000")
@click.option("--model", required=True, metavar="NAME", help="Name that the server serves.")
@click.option(
    "--task",
    "name",
    type=click.Choice(NAMES),
    default="problems",
    show_default=True,
    help="The shipped word problems, or GSM8K from --data.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Of gsm8k: JSON lines or Parquet of question and answer, or a folder with test and train.",
)
@click.option("--limit", type=_COUNT, metavar="N", help="Items to ask, from the first.  [all]")
@click.option("--shots", type=click.IntRange(min=0), help="Worked examples.  [gsm8k: 5, else 0]")
@click.option(
    "--max-tokens",
    type=click.IntRange(1, _MOST_TOKENS),
    metavar="N",
    help="Of an answer.  [default: 256]",
)
@click.option(
    "--concurrency",
    type=NumberList(integers=True),
    default="16",
    show_default=True,
    metavar="N,N,...",
    help="Questions in flight; one evaluation each.",
)
@click.option(
    "--context",
    type=click.IntRange(0, _MOST_TOKENS),
    metavar="TOKENS",
    help="Bring prompts up to this length with examples.  [with --series: the point's; else 0]",
)
@click.option("--endpoint", type=click.Choice(["completions", "chat"]), default="completions")
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    default="strict",
    show_default=True,
    help="Which score counts: the number after ####, or the last one.",
)
@click.option("--minimum", type=_SHARE, metavar="SHARE", help="Gate: the least score that passes.")
@click.option("--baseline", metavar="SERIES", help="Gate: not below this series' score ...")
@click.option("--margin", type=_SHARE, metavar="SHARE", help="... by more than this, at 95 %.")
@click.option(
    "--power",
    type=_SHARE,
    default=0.8,
    show_default=True,
    help="Wanted of that test; a failure below it says how many items it takes.",
)
@click.option(
    "--series",
    metavar="NAME",
    help="Record it at this series' latest point of the same concurrency.",
)
@click.option("--resume", is_flag=True, help="Ask only what the last evaluation like this lacks.")
@click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds that one try may take.",
)
@click.option("--api-key", envvar="UPCURVE_API_KEY", show_envvar=True, help="Never stored.")
@json_option
@store_option
def command(
    base_url: str,
    model: str,
    name: Any,
    data: Path | None,
    limit: int | None,
    shots: int | None,
    max_tokens: int | None,
    concurrency: list[int],
    context: int | None,
    endpoint: Any,
    metric: Metric,
    minimum: float | None,
    baseline: str | None,
    margin: float | None,
    power: float,
    series: str | None,
    resume: bool,
    timeout: float,
    api_key: str | None,
    as_json: bool,
    store: str,
) -> None:
    """Ask a running OpenAI-compatible server questions with known answers.

    Prints the share of right answers with its 95 % interval at each concurrency. Every answer is
    kept in the store as it comes. Exits with 1 where the gate fails or an item gets no answer.

    \b
    Example:
      upcurve eval --base-url http://127.0.0.1:8000 --model qwen --minimum 0.9
      upcurve eval --base-url http://127.0.0.1:8000 --model qwen --task gsm8k --data gsm8k \\
        --concurrency 1,16,64 --series may --baseline feb --margin 0.02
    """  # noqa: D301
    gate = _gate(minimum, baseline, margin, power)
    task = load_task(name, data, limit=limit, shots=shots, max_tokens=max_tokens)
    target = Target(base_url, model, api_key, endpoint=endpoint, proxy=environment_proxy(base_url))
    found: list[dict[str, Any]] = []
    try:
        with Store.open(store) as opened, sigterm_interrupts():
            run = _Eval(target, task, metric, gate, opened, series, resume)
            for place in run.places(concurrency, context, timeout):
                result = run.evaluate(place)
                found.append(result)
                if as_json:
                    click.echo(orjson.dumps(result).decode())
    except KeyboardInterrupt:
        click.echo(f"upcurve: answers stay in {store}; --resume goes on", err=True)
        raise
    if not as_json:
        print_table(eval_table(found))
    for each in found:
        if each["passed"] is not None or each["failed"]:
            verdict = {True: "passed", False: "error: the gate failed", None: "error"}
            said = f" ({each['problem']})" if each["problem"] else ""
            lost = f"{each['failed']} items got no answer{said}"
            why = lost if each["passed"] is None else each["why"]
            line = f"{verdict[each['passed']]} at concurrency {each['concurrency']}: {why}"
            click.echo(f"upcurve: {line}", err=True)
    if any(each["passed"] is False or each["failed"] for each in found):
        click.get_current_context().exit(1)


def _gate(
    minimum: float | None, baseline: str | None, margin: float | None, power: float
) -> Gate | None:
    if minimum is not None and baseline is not None:
        raise click.UsageError("--minimum and --baseline exclude each other: it is one gate")
    if (baseline is None) != (margin is None):
        raise click.UsageError("--baseline SERIES goes with --margin SHARE")
    if minimum is not None:
        return Minimum(minimum)
    if baseline is not None and margin is not None:
        return NonInferiority(baseline, margin, power)
    return None


@dataclass(frozen=True, slots=True)
class _Place:
    """One evaluation that is asked for."""

    setting: Setting
    point: int | None
    """Of the store, which takes the outcome."""
    reference: Reference | None


@dataclass(frozen=True, slots=True)
class _Eval:
    """One invocation."""

    target: Target
    task: Task
    metric: Metric
    gate: Gate | None
    store: Store
    series: str | None
    resume: bool

    def places(self, concurrency: list[int], context: int | None, timeout_s: float) -> list[_Place]:
        """Return what is evaluated; what cannot be recorded or compared is refused here."""
        points = self.store.latest_points(self.series) if self.series else {}
        found = []
        for each in concurrency:
            if self.series and each not in points:
                listed = ", ".join(map(str, sorted(points)))
                problem = f"{self.series} has no point of concurrency {each}"
                raise InputError("concurrency", problem, f"measured are {listed}")
            point, isl = points.get(each, (None, None))
            length = (isl if context is None else context) or None
            setting = Setting(each, length, timeout_s)
            found.append(_Place(setting, point, self._reference(setting)))
        return found

    def _reference(self, setting: Setting) -> Reference | None:
        series = None if self.gate is None else self.gate.baseline
        if series is None:
            return None
        if series == self.series:
            problem = f"{series!r} is what is evaluated"
            raise InputError("baseline", problem, "name another series")
        endpoint = self.target.endpoint
        found = reference_of(self.store, series, self.task, setting, endpoint, self.metric)
        if found is None:
            count = len(self.task.items)
            problem = f"the store has no whole answers of {series!r} to these {count:,} prompts"
            raise InputError("baseline", problem, "evaluate it first, with --series")
        if isinstance(self.gate, NonInferiority):
            planned = self.gate.planned_power(len(self.task.items), found)
            click.echo(
                f"upcurve: gate at concurrency {setting.concurrency}: at most "
                f"{self.gate.margin:g} below {series}, one-sided at {100 * CONFIDENCE:g} %; "
                f"power {planned:.2f} or more",
                err=True,
            )
        return found

    def evaluate(self, place: _Place) -> dict[str, Any]:
        """Ask, keep and judge."""
        setting, target = place.setting, self.target
        facts = {
            **self.task.facts(),
            "url": target.url,
            "model": target.model,
            "concurrency": setting.concurrency,
            "context": setting.context,
        }
        folder = self.store.root / FOLDER
        file = AnswersFile.resume(folder, facts) if self.resume else None
        stem = f"{target.model}-c{setting.concurrency}-{self.task.name}"
        with file or AnswersFile.begin(folder, stem, facts) as kept:
            with AskedView(Console(stderr=True), setting.concurrency) as view:
                found = evaluate(target, self.task, setting, kept, view.watch)
            result = outcome(
                found,
                self.task,
                setting,
                endpoint=target.endpoint,
                metric=self.metric,
                gate=self.gate,
                reference=place.reference,
                answers=str(kept.path.relative_to(self.store.root)),
                same_process=None,
            )
        if place.point is not None:
            self.store.set_accuracy(place.point, result)
        return result
