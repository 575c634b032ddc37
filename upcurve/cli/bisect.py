"""`upcurve bisect`: which commit of an engine moved a metric."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from upcurve.cli.bisect_view import Lines, decisions_table, json_object, words
from upcurve.cli.options import FiniteRange, json_option, store_option
from upcurve.cli.tables import print_table
from upcurve.errors import InputError
from upcurve.records.store import Store
from upcurve.sweep.bisection import LEAST_ROUNDS, RevisionError, bisect
from upcurve.sweep.interruption import sigterm_interrupts
from upcurve.sweep.launch_run import HOST
from upcurve.sweep.recipe import Recipe, check_said, load_recipe
from upcurve.sweep.revision import Repository, Revision, Worktrees
from upcurve.sweep.revision_runs import COLUMNS, Question, RevisionRuns, recipe_of


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--repository",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A git clone of the engine; its working tree is not touched.",
)
@click.option("--good", required=True, metavar="REV", help="A commit before the move.")
@click.option("--bad", required=True, metavar="REV", help="A commit after it.")
@click.option(
    "--at",
    type=FiniteRange(min=0, min_open=True),
    metavar="INTERACTIVITY",
    help="Compare tok/s/GPU here, in tok/s/user: each run measures all concurrencies.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    help="Compare one point: each run measures it alone.",
)
@click.option(
    "--metric",
    type=click.Choice(list(COLUMNS)),
    default="tput_per_gpu",
    show_default=True,
    help="What to compare at --concurrency.",
)
@click.option(
    "--setup",
    default="",
    metavar="COMMAND",
    help="Shell command that makes a checkout ready, run there: pip install, make.",
)
@click.option(
    "--error",
    type=FiniteRange(min=0, max=0.5, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="How often the whole answer may be wrong.",
)
@click.option(
    "--max-runs",
    type=click.IntRange(min=LEAST_ROUNDS),
    default=30,
    show_default=True,
    metavar="N",
    help="Runs of one revision at most; then it stays undecided.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As in sweep.")
@click.option("--dry-run", is_flag=True, help="Print the revisions and the command; run nothing.")
@json_option
@store_option
def command(
    recipe: Path,
    repository: Path,
    good: str,
    bad: str,
    at: float | None,
    concurrency: int | None,
    metric: str,
    setup: str,
    error: float,
    max_runs: int,
    overrides: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    store: str,
) -> None:
    """Find the commit that moved a metric of RECIPE's engine between two commits.

    Each revision is checked out in a worktree of its own, which {repository} in the recipe's
    command stands for, and measured until it is decided. Runs stay in the store: the same command
    goes on where it was interrupted. Exits with 1 where no single commit can be named.

    \b
    Example:
      upcurve bisect engine.yaml --repository ~/engine --good v1.2 --bad main --concurrency 8
      upcurve bisect engine.yaml --repository . --good HEAD~40 --bad HEAD --at 40 --setup "make"
    """  # noqa: D301
    if (at is None) == (concurrency is None):
        problem = "neither is given" if at is None else "both are given"
        raise InputError("--at or --concurrency", problem, "give one of them")
    if at is not None and metric != "tput_per_gpu":
        raise InputError("--metric", f"{metric} cannot be read --at", "give --concurrency")
    question = Question(next(each for each in COLUMNS if each == metric), at)
    opened = Repository(repository)
    # Only to be whole as it is read: each revision has a folder of its own.
    here = f"engine.repository={json.dumps(str(opened.path))}"
    loaded = load_recipe(recipe, [here, *overrides])
    check_said(recipe, overrides, loaded)
    if concurrency is not None:
        loaded = loaded.model_copy(update={"concurrency": [concurrency]})
    if not setup and not any("{repository}" in word for word in loaded.engine.command):
        mend = "write {repository} in the command, or give --setup"
        raise InputError("engine.command", "it is the same for every revision", mend)
    revisions = opened.path_between(opened.revision(good, "--good"), opened.revision(bad, "--bad"))
    if dry_run:
        _print_plan(loaded, revisions, as_json=as_json)
        return
    view = Lines(revisions)
    with (
        sigterm_interrupts(),
        Store.open(store) as kept,
        Worktrees(opened, kept.root / "worktrees") as worktrees,
    ):
        runs = RevisionRuns(
            loaded,
            revisions,
            question,
            setup=setup,
            store=kept,
            worktrees=worktrees,
            progress=view,
        )
        view.runs = runs
        try:
            answer = bisect(len(revisions) - 1, runs, error=error, max_runs=max_runs, watcher=view)
        except RevisionError as problem:
            click.echo(f"upcurve: good or bad gives no figures: {problem}", err=True)
            click.get_current_context().exit(1)
    if as_json:
        place = {"metric": metric, "at": at, "concurrency": concurrency, "error": error}
        click.echo(json.dumps(place | json_object(answer, revisions) | {"reused": runs.reused}))
    else:
        if answer.decisions:
            print_table(decisions_table(answer, revisions))
        click.echo("\n".join(words(answer, revisions, error)))
    if not answer.found:
        click.get_current_context().exit(1)


def _print_plan(recipe: Recipe, revisions: Sequence[Revision], *, as_json: bool) -> None:
    first = recipe_of(recipe, revisions[0], "FOLDER")
    line = first.command(host=HOST, port="PORT")
    decisions = math.ceil(math.log2(len(revisions) - 1))
    if as_json:
        listed = [{"commit": each.sha, "subject": each.subject} for each in revisions]
        planned = {"revisions": listed, "decisions": decisions, "command": line}
        click.echo(json.dumps(planned))
        return
    for each in revisions:
        click.echo(f"{each.short} {each.subject}")
    click.echo(
        f"{len(revisions) - 1} commits along first parents can have made the move: at most "
        f"{decisions} decisions, where none is skipped\n  {shlex.join(line)}"
    )
