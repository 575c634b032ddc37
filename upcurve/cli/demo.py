"""`upcurve demo`: the whole loop on this machine, from a model to a comparison."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import click
import orjson
from rich.console import Console

from upcurve import __version__
from upcurve.cli.options import NumberList, json_option, store_option
from upcurve.cli.tables import comparison_table, print_table
from upcurve.dashboard.report import render_report, write_report
from upcurve.dashboard.section import comparison_section, headline
from upcurve.dashboard.terminal import draw
from upcurve.errors import InputError
from upcurve.frontier.comparison import Comparison, compare
from upcurve.frontier.grid import legend
from upcurve.frontier.point import Point
from upcurve.frontier.targets import round_targets
from upcurve.records import environment
from upcurve.records.comparable import (
    ComparableSeries,
    comparable_series,
    differences,
    series_prices,
)
from upcurve.records.published import prices as published_prices
from upcurve.records.rows import import_rows
from upcurve.records.store import Store
from upcurve.sweep.demo import demo_recipes, question_recipe
from upcurve.sweep.engine_process import EngineError
from upcurve.sweep.question import ask
from upcurve.sweep.recipe import Recipe
from upcurve.sweep.runner import run_sweep
from upcurve.sweep.view import LiveView, PlainLines

PUBLISHED_TARGETS = [20.0, 30.0, 40.0, 50.0, 60.0]
MEASURED_MODEL = "random-64-experts"
QUESTION = (
    "A shop sells chairs for $8 each. 2 chairs are bought by Alex. The shop takes $9 off the "
    "price. Alex started with $69. How many dollars are left?"
)
"""The last two sentences are worded, and 69 lies in a range, as no problem of its training."""


@click.command()
@click.option(
    "--concurrency",
    type=NumberList(integers=True),
    default="1,2,4,8",
    show_default=True,
    help="Requests in flight, one point each.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N")
@json_option
@store_option
def command(concurrency: list[int], repeats: int, as_json: bool, store: str) -> None:
    """Ask a small model, sweep another twice, compare, show: the whole loop in a few minutes.

    Serves the trained model of the repository on the CPU and asks it a question. Then makes a
    random-weight checkpoint of the same Qwen3.5 MoE architecture with 64 experts, where a CPU has
    something to win, serves it with every optimisation off and with all of them on, sweeps both in
    interleaved rounds, and compares the two curves, and the published MI355X ones, at equal
    interactivity. --json prints one object at the end: the answer, both comparisons as `upcurve
    compare --json` has them, and where report and records are; what people read goes to stderr.

    \b
    Example:
      upcurve demo
      upcurve demo --repeats 5 --store ./results
    """  # noqa: D301
    if "://" in store:
        raise InputError("store", "the demo keeps its model and its page in a folder", "name one")
    folder, started = Path(store), time.monotonic()
    tell = partial(click.echo, err=as_json)
    asked = question_recipe()
    with Store.open(store) as opened:
        _say("1", f"serve the trained model {asked.model} and ask it a question")
        answer = _ask(asked, opened.log_path("demo-question"))
        tell("\n".join([QUESTION, *(f"    {line}" for line in answer.splitlines())]))
        checkpoint = _make_model(folder)
        recipes = demo_recipes(checkpoint, concurrencies=concurrency, repeats=repeats)
        click.echo("      baseline (--off all) and optimised in interleaved rounds", err=True)
        console = Console(stderr=True)
        with LiveView(console) if console.is_terminal else PlainLines(console) as view:
            swept = run_sweep(recipes, opened, resume=False, progress=view)
        if swept.failures:
            raise click.ClickException(f"a point failed: {swept.failures[0].problem}")
        _say("3", "compare them at equal interactivity (tokens/s per user), no extrapolation")
        traffic = recipes[0].workload
        names = [recipe.series for recipe in recipes]
        own = comparable_series(opened, names, isl=traffic.isl, osl=traffic.osl)
        measured = _compare(own, baseline=names[0], targets=None)
        _show(measured, own, stderr=as_json, device="CPU")
        _say("4", "beside them, the published curves: Qwen3.5-397B-A17B on MI355X, 2026")
        import_rows(opened, "published:mi355x-qwen35")
        public = comparable_series(opened, ["feb", "apr", "may"])
        published = _compare(public, baseline="feb", targets=PUBLISHED_TARGETS)
        _show(published, public, stderr=as_json)
        page = folder / "reports" / "demo.html"
        _say("5", "write the report: one file, no network needed to read it")
        write_report(page, _report(measured, own, published, public, repeats))
    seconds = time.monotonic() - started
    tell(f"\n{headline(measured, names[1])}")
    tell(f"report    {page.resolve().as_uri()}")
    tell(f"records   {folder}/store.sqlite, traces and logs beside it")
    tell(f"again     upcurve compare baseline optimised --store {store}")
    tell(f"ask it    upcurve serve {asked.model}")
    tell(f"took      {seconds / 60:.1f} minutes")
    if as_json:
        result = {
            "question": QUESTION,
            "answer": answer,
            "headline": headline(measured, names[1]),
            "measured": measured.to_dict(),
            "published": published.to_dict(),
            "report": str(page.resolve()),
            "store": str(folder.resolve()),
            "seconds": round(seconds, 1),
        }
        click.echo(orjson.dumps(result))


def _say(step: str, what: str) -> None:
    click.echo(f"\n[{step}/5] {what}", err=True)


def _ask(recipe: Recipe, log: Path) -> str:
    try:
        return ask(recipe, QUESTION, log=log)
    except EngineError as error:
        raise click.ClickException(f"the engine failed: {error}") from error


def _make_model(folder: Path) -> Path:
    from upcurve.engine.model.checkpoint import small_config, write_checkpoint

    checkpoint = folder / "models" / MEASURED_MODEL
    config = small_config()
    _say(
        "2",
        f"sweep a random-weight Qwen3.5 MoE checkpoint, made in {checkpoint}: "
        f"{config['num_hidden_layers']} layers (3 of 4 Gated DeltaNet), "
        f"{config['num_experts']} experts, {config['num_experts_per_tok']} a token, 1 shared",
    )
    write_checkpoint(checkpoint, config, seed=0)
    return checkpoint


def _compare(
    compared: Sequence[ComparableSeries], *, baseline: str, targets: list[float] | None
) -> Comparison:
    points = {each.summary.name: each.points for each in compared}
    prices, _ = series_prices(compared, published_prices(), tier="hyperscaler")
    return compare(
        points,
        baseline=baseline,
        targets=targets or _targets(points),
        usd_per_gpu_hour={name: price.usd_per_gpu_hour for name, price in prices.items() if price},
    )


def _targets(points: Mapping[str, Sequence[Point]]) -> list[float]:
    """Return round targets that both curves reach, or where each ends if they share none."""
    try:
        return round_targets(points)
    except InputError:
        ends = [
            end(point.interactivity for point in each)
            for each in points.values()
            for end in (min, max)
        ]
        return sorted({float(round(end)) or end for end in ends})


def _show(
    comparison: Comparison,
    compared: Sequence[ComparableSeries],
    *,
    stderr: bool,
    device: str = "GPU",
) -> None:
    console, tell = Console(stderr=stderr), partial(click.echo, err=stderr)
    print_table(comparison_table(comparison), stderr=stderr)
    tell("\n".join(_notes(comparison, compared)))
    if device != "GPU":
        tell(f"tok/s/GPU is tokens/s of the {device} here: it is the one device that serves.")
    title = " against ".join(reversed([series.name for series in comparison.series[:2]]))
    chart = draw(
        comparison,
        title=title if len(comparison.series) == 2 else "published",
        width=min(console.width, 100),
        height=20,
        colour=console.is_terminal and not console.no_color,
        device=device,
    )
    tell(f"\n{chart}")


def _notes(comparison: Comparison, compared: Sequence[ComparableSeries]) -> list[str]:
    details = {each.summary.name: each.describe() for each in compared}
    return [*legend(comparison, details), *differences(compared)]


def _report(
    measured: Comparison,
    own: Sequence[ComparableSeries],
    published: Comparison,
    public: Sequence[ComparableSeries],
    repeats: int,
) -> str:
    host = environment.host()
    software = environment.software()
    facts = [
        ("machine", f"{host['cpu']}, {host['logical_cores']} logical cores"),
        ("software", ", ".join(f"{name} {version}" for name, version in software.items())),
        ("design", f"{repeats} rounds, a fresh engine process for each series in each round"),
        ("fingerprints", "; ".join(f"{e.summary.name} {', '.join(e.fingerprints)}" for e in own)),
        ("published rows", "SemiAnalysis InferenceX, 2026: SGLang on MI355X, 8192 in / 1024 out"),
    ]
    return render_report(
        title="Upcurve demo",
        subtitle=f"upcurve {__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        sections=[
            comparison_section(
                measured,
                {each.summary.name: each.points for each in own},
                title="Measured here: every optimisation off and on",
                headline=headline(measured, "optimised"),
                notes=_notes(measured, own),
                device="CPU",
            ),
            comparison_section(
                published,
                {each.summary.name: each.points for each in public},
                title="Published: Qwen3.5-397B-A17B, FP8, on MI355X",
                headline=headline(published, "may"),
                notes=_notes(published, public),
            ),
        ],
        provenance=facts,
    )
