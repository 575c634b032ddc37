"""An attribution laid out for readers: a table with bars, and words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upcurve.frontier.attribution import Attribution, Estimate, Share
from upcurve.frontier.flag_notes import flag_notes
from upcurve.frontier.flags import Flag
from upcurve.frontier.shapley import Design
from upcurve.frontier.text import cost_text, ratio_text, throughput_text

TOGETHER = "three or more together"
"""Name of the bar of what is left in the design `one`."""
WIDTH = 24
"""Characters of the widest bar."""


@dataclass(frozen=True, slots=True)
class Step:
    """One bar of a waterfall, in tok/s/GPU; the baseline and the full configuration are levels."""

    name: str
    start: float
    end: float
    low: float | None
    """The end at the lower end of the share's 95 % interval; None without one."""
    high: float | None

    @property
    def level(self) -> bool:
        """Whether it is a level rather than a move."""
        return self.start == self.end


def steps(attribution: Attribution) -> list[Step]:
    """Return the bars from the baseline to the full configuration; [] where there are no shares.

    Bars multiply: on a logarithmic axis each is as long as its share.
    """
    if attribution.baseline is None or attribution.full is None or not attribution.shares:
        return []
    at = attribution.baseline.mean
    found = [_level("baseline (all off)", attribution.baseline)]
    for bar in attribution.bars:
        end = at + bar.log.mean
        width = bar.log.half_width
        low, high = _ends(end, width)
        found.append(Step(bar_name(bar), math.exp(at), math.exp(end), low, high))
        at = end
    return [*found, _level("full (all on)", attribution.full)]


def _level(name: str, level: Estimate) -> Step:
    value = math.exp(level.mean)
    return Step(name, value, value, *_ends(level.mean, level.half_width))


def _ends(log: float, width: float | None) -> tuple[float, float] | tuple[None, None]:
    return (None, None) if width is None else (math.exp(log - width), math.exp(log + width))


def bar_name(bar: Share) -> str:
    """Return what a bar is called."""
    return bar.switch or TOGETHER


def headline(attribution: Attribution) -> str:
    """Return the move in one sentence."""
    at = f"At {attribution.interactivity:g} tok/s/user"
    move, levels = attribution.move, (attribution.baseline, attribution.full)
    if move is None or levels[0] is None or levels[1] is None:
        return f"{at}: no shares, because no round has a value of every configuration."
    low, high = (throughput_text(math.exp(each.mean)) for each in levels if each)
    words = f"{at}: {low} to {high} tok/s/GPU, {_factor(move)}{_within(move)}"
    if attribution.usd is not None:
        words += f", {' to '.join(map(cost_text, attribution.usd))} per million tokens"
    count = len(attribution.rounds)
    return f"{words}; {count} round{'' if count == 1 else 's'}."


def header(attribution: Attribution) -> list[str]:
    """Return the names of the columns."""
    cost = ["$/M tokens"] if attribution.usd_move else []
    return [
        "",
        "factor",
        "95 % interval",
        "of the move",
        *cost,
        "alone",
        "last",
        "baseline to full",
    ]


def table(attribution: Attribution) -> list[list[str]]:
    """Return one row of texts for each bar and for the whole move, the bar drawn in characters."""
    shown = steps(attribution)
    if not shown or attribution.move is None:
        return []
    edges = [edge for step in shown for edge in (step.start, step.end)]
    low, high = math.log(min(edges)), math.log(max(edges))
    rows = []
    for bar, step in zip(attribution.bars, shown[1:-1], strict=True):
        cost = [_cost(bar.usd)] if attribution.usd_move else []
        rows.append(
            [
                bar_name(bar),
                _factor(bar.log),
                _interval(bar.log),
                _percent(bar.log, attribution.move),
                *cost,
                _with_margin(bar.added_alone),
                _with_margin(bar.taken_away),
                _drawn(step, low, high),
            ]
        )
    move = attribution.move
    cost = [_cost(attribution.usd_move)] if attribution.usd_move else []
    whole = Step("", shown[0].start, shown[-1].end, None, None)
    rows.append(
        ["all", _factor(move), _interval(move), "100 %", *cost, "", "", _drawn(whole, low, high)]
    )
    return rows


def legend(attributions: Sequence[Attribution]) -> list[str]:
    """Return what the columns mean, for the design at hand."""
    design = attributions[0].design
    made = {
        "full": "factor: exact Shapley share, the mean over all orders of turning switches on",
        "shapley": "factor: the mean over the orders of each round, each with its reverse",
        "one": "factor: the mean of alone and last, which is the Shapley share where switches "
        f"interact in pairs; the rest is '{TOGETHER}'",
    }[design]
    lines = [
        f"{made}; factors multiply to the whole move.",
        "alone: this switch alone over all off; last: all on over all on but this one.",
    ]
    if any(each.usd_move for each in attributions):
        lines.append("$/M tokens: shares of the change of cost, made of costs; they add up to it.")
    if any(bar.log.half_width is not None for each in attributions for bar in each.bars):
        lines.append(
            "95 % interval: Student t over rounds, each bar by itself; each round is split by "
            "itself, so what all its configurations share cancels."
        )
    elif any(each.shares for each in attributions):
        lines.append("No interval: it takes three rounds.")
    return lines


def remarks(
    attribution: Attribution,
    labels: Mapping[frozenset[str], str],
    *,
    precision: float | None,
    reached: tuple[float, float] | None,
) -> list[str]:
    """Return what a reader must know of one target: lost rounds, ends, precision, targets to try.

    Args:
        attribution: the move.
        labels: configurations in words.
        precision: wanted half width in log ratio; None where nothing was asked for.
        reached: the interactivities that every configuration reaches; None where there are none.
    """
    at = f"At {attribution.interactivity:g} tok/s/user"
    lines = [
        f"{at}: round {each.round + 1} is left out: {labels[each.configuration]}: {each.reason}."
        for each in attribution.lost
    ]
    if not attribution.shares:
        if reached is None:
            lines.append("No interactivity is reached by every configuration; widen concurrency.")
        elif not reached[0] <= attribution.interactivity <= reached[1]:
            span = f"{reached[0]:.4g} to {reached[1]:.4g}"
            lines.append(f"Every configuration reaches {span} tok/s/user: give --at in there.")
        return lines
    if attribution.ends:
        lines.append(
            f"{at}: {attribution.ends} of {attribution.readings} readings lie in the first or last "
            "interval of their frontier, where the interpolation rule matters (see --rule)."
        )
    if precision is not None and not attribution.precise(precision):
        more = attribution.more_rounds(precision)
        wanted = f"{at}: not every share is known to +-{precision:.2g} in log ratio"
        lines.append(
            f"{wanted}; how many rounds it takes is not known yet."
            if more is None
            else f"{wanted}: about {_rounds(max(more, 1))} at this spread (--max-rounds)."
        )
    return lines


def all_remarks(
    attributions: Sequence[Attribution],
    labels: Mapping[frozenset[str], str],
    flags: Sequence[Mapping[str, Sequence[Flag]]],
    *,
    precision: float | None,
    reached: tuple[float, float] | None,
) -> list[str]:
    """Return what a reader must know of every target, each line once, and what columns mean."""
    said = [
        line
        for each in attributions
        for line in remarks(each, labels, precision=precision, reached=reached)
    ]
    said += flag_notes(
        (name, attribution.interactivity, own)
        for attribution, of in zip(attributions, flags, strict=True)
        for name, own in of.items()
    )
    return [*dict.fromkeys(said), *legend(attributions)]


def order_remark(design: Design, seed: int) -> str:
    """Return how the launches were ordered."""
    return f"Rounds interleaved, launches in random order, seed {seed}; design {design}."


def markdown(attribution: Attribution) -> str:
    """Return the headline and the table of one target as Markdown, ending in a newline."""
    rows = table(attribution)
    lines = [headline(attribution), ""]
    if rows:
        head = header(attribution)
        rule = ["---", *["---:"] * (len(head) - 2), "---"]
        cells = [[cell.replace("|", r"\|") for cell in row] for row in [head, rule, *rows]]
        lines += ["| " + " | ".join(row) + " |" for row in cells] + [""]
    return "\n".join(lines)


def _rounds(count: int) -> str:
    return f"{count} more round{'' if count == 1 else 's'}"


def _drawn(step: Step, low: float, high: float) -> str:
    """Return a bar on a logarithmic scale: solid for a gain, shaded for a loss."""
    scale = WIDTH / (high - low) if high > low else 0.0
    ends = sorted((math.log(step.start), math.log(step.end)))
    first, last = (round((end - low) * scale) for end in ends)
    if first == last:
        return " " * min(first, WIDTH - 1) + "|"
    return " " * first + ("█" if step.end > step.start else "░") * (last - first)


def _factor(estimate: Estimate) -> str:
    value = math.exp(estimate.mean)
    return f"{value:.3f}x" if value < 9.995 else ratio_text(value)


def _interval(estimate: Estimate) -> str:
    if estimate.interval is None:
        return ""
    return " to ".join(f"{math.exp(end):.3f}" for end in estimate.interval)


def _within(estimate: Estimate) -> str:
    return f" ({_interval(estimate)})" if estimate.interval else ""


def _with_margin(estimate: Estimate | None) -> str:
    if estimate is None or estimate.half_width is None:
        return _factor(estimate) if estimate else ""
    return f"{_factor(estimate)} +-{100 * math.expm1(estimate.half_width):.1f} %"


def _percent(part: Estimate, whole: Estimate) -> str:
    """Return a share of the move in percent; nothing where the move may be none at all."""
    doubtful = whole.interval is not None and whole.interval[0] <= 0 <= whole.interval[1]
    return "" if doubtful or whole.mean == 0 else f"{100 * part.mean / whole.mean:.0f} %"


def _cost(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    text = f"{'-' if estimate.mean < 0 else '+'}{cost_text(abs(estimate.mean))}"
    width = estimate.half_width
    return text if width is None else f"{text} +-{width:.2g}"
