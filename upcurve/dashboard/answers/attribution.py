"""Ablations of a store: the move of each, split over its switches, from what was recorded."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from upcurve.dashboard.catalogue import Catalogue, group_id
from upcurve.dashboard.contract.questions import AttributionQuestion, numbers
from upcurve.dashboard.contract.runs import Ablation, Attribution, Bar, OneAttribution
from upcurve.dashboard.reader import Reader
from upcurve.errors import InputError
from upcurve.frontier.attribution_data import Told, doubtful
from upcurve.frontier.cost import Price
from upcurve.frontier.point import Point
from upcurve.frontier.rounds import common_range
from upcurve.frontier.shapley import Configuration
from upcurve.frontier.targets import round_targets
from upcurve.frontier.waterfall import all_remarks, headline, order_remark, steps
from upcurve.records.browse import RunSummary, ablation_recipes
from upcurve.records.compared import Pricing
from upcurve.records.facts import facts
from upcurve.records.published import prices as published_prices
from upcurve.records.reader import StoreReader
from upcurve.sweep.schedule import Schedule
from upcurve.sweep.switch import series_label

MOST_ITEMS = 20


@dataclass(frozen=True, slots=True)
class _Recorded:
    """One run of an ablation."""

    run: RunSummary
    recipe: dict[str, Any]

    @property
    def asked(self) -> dict[str, Any]:
        found: dict[str, Any] = self.recipe["ablation"]
        return found

    @property
    def on(self) -> Configuration:
        return Configuration(self.asked["on"])

    @property
    def workload(self) -> tuple[int, int]:
        traffic = self.recipe["workload"]
        return traffic["isl"], traffic["osl"]

    def key(self) -> tuple[Any, ...]:
        """Return what the runs of one ablation have in common, its name first."""
        run, asked = self.run, self.asked
        kind = (tuple(asked["switches"]), asked["design"], asked["seed"], asked.get("pairs", 1))
        build = (run.engine, run.engine_version, run.engine_commit, run.image, run.engine_source)
        label = series_label(asked["switches"], self.on)
        name = self.recipe["name"].removesuffix(f": {label}")
        return (name, *kind, run.model, run.hardware, *self.workload, *build)


def attribution(reader: Reader, question: AttributionQuestion) -> Attribution:
    """Answer `attribution`."""
    catalogue = reader.catalogue()
    if question.group is not None:
        catalogue.group(question.group)
    found: dict[Any, list[_Recorded]] = defaultdict(list)
    for run_id, recipe in ablation_recipes(reader.store):
        run = catalogue.runs.get(run_id)
        if run is None:
            continue
        each = _Recorded(run, recipe)
        if question.group in (None, group_id(run.model, *each.workload)):
            found[each.key()].append(each)
    newest = sorted(found.items(), key=lambda item: item[1][-1].run.started_at, reverse=True)
    items = [_Item(reader.store, catalogue, key, of) for key, of in newest[:MOST_ITEMS]]
    return Attribution(items=[each.answer(question) for each in items if each.points])


class _Item:
    """One ablation on its way into the answer."""

    def __init__(
        self,
        store: StoreReader,
        catalogue: Catalogue,
        key: tuple[Any, ...],
        of: Sequence[_Recorded],
    ) -> None:
        self._catalogue = catalogue
        self._key = key
        self._last = of[-1]
        asked = self._last.asked
        self._schedule = Schedule(
            tuple(asked["switches"]), asked["design"], asked["seed"], asked.get("pairs", 1)
        )
        # Of a configuration that was measured under two fingerprints the later one counts.
        self._runs = {each.on: each for each in of}
        self.points = {
            on: found for on, each in self._runs.items() if (found := _points(store, each))
        }

    def answer(self, question: AttributionQuestion) -> OneAttribution:
        """Return the ablation at the targets asked for, else where every configuration reaches."""
        from upcurve.sweep.ablation_rounds import splitter  # imports all that launches engines

        reached = common_range(self.points)
        targets = numbers(question.at) or self._targets(reached)
        price, notes = _price(self._last.run, question.pricing())
        rounds = 1 + max(point.repeat for own in self.points.values() for point in own)
        split = splitter(
            self._schedule,
            targets,
            rule=question.rule,
            prices=lambda _: price.usd_per_gpu_hour if price else None,
        )
        attributions = split(self.points, rounds)
        wanted = {on for index in range(rounds) for on in self._schedule.configurations(index)}
        labels = {on: self._label(on) for on in wanted | set(self._runs)}
        flags = doubtful(self.points, attributions, labels, question.rule)
        remarks = all_remarks(
            attributions, labels, flags, precision=question.precision, reached=reached
        )
        if price:
            notes.append(f"Price: {price.describe()}.")
        told = Told(
            attributions,
            self._schedule.switches,
            self._schedule.design,
            self._schedule.seed,
            rounds,
            question.precision,
            [(each.run.series, on, each.run.fingerprint) for on, each in self._runs.items()],
            flags,
            [*remarks, *notes, order_remark(self._schedule.design, self._schedule.seed)],
        )
        run, (isl, osl) = self._last.run, self._last.workload
        return OneAttribution(
            id=hashlib.sha256(repr(self._key).encode()).hexdigest()[:12],
            title=f"{self._key[0]}: {run.model} on {run.hardware}, {isl} in / {osl} out",
            group=group_id(run.model, isl, osl),
            measured_on=run.started_at.astimezone(UTC).date().isoformat(),
            ablation=Ablation.model_validate(told.to_dict()),
            headlines=[headline(each) for each in attributions],
            waterfalls=[
                [
                    Bar(
                        name=step.name,
                        start=step.start,
                        end=step.end,
                        low=step.low,
                        high=step.high,
                        level=step.level,
                    )
                    for step in steps(each)
                ]
                for each in attributions
            ],
            reached=reached,
        )

    def _label(self, on: Configuration) -> str:
        return series_label(self._schedule.switches, on)

    def _targets(self, reached: tuple[float, float] | None) -> list[float]:
        """Return round targets that every round of every configuration reaches."""
        if reached is None:
            return [next(iter(self.points.values()))[0].interactivity]
        series = {self._label(on): own for on, own in self.points.items()}
        try:
            found = round_targets(series)
        except InputError:
            found = []
        inside = [each for each in found if reached[0] <= each <= reached[1]]
        return inside or [float(f"{(reached[0] + reached[1]) / 2:.4g}")]


def _points(store: StoreReader, each: _Recorded) -> list[Point]:
    """Return the points of a configuration; of one operating point and round the latest."""
    recipe = each.recipe
    latest = {
        (repeat, figures["concurrency"]): figures
        for repeat, figures in store.results(each.run.fingerprint, each.run.series)
        if (figures.get("isl"), figures.get("osl")) == each.workload
        and figures.get("concurrency") in recipe["concurrency"]
    }
    return [
        Point(
            figures["interactivity"],
            figures["tput_per_gpu"],
            recipe["tp"],
            recipe["gpus"],
            concurrency,
            repeat,
            facts=facts(figures.get("requests"), figures.get("failed"), figures),
        )
        for (repeat, concurrency), figures in latest.items()
    ]


def _price(run: RunSummary, pricing: Pricing) -> tuple[Price | None, list[str]]:
    if run.hardware in pricing.given:
        return Price(run.hardware, pricing.given[run.hardware]), []
    table = published_prices()
    if run.hardware not in table.hardware:
        mend = f"give --price {run.hardware}=USD"
        return None, [f"No cost, because {run.hardware} has no price; {mend}."]
    on = pricing.on or run.started_at.astimezone(UTC).date()
    return table.lookup(run.hardware, pricing.tier, on), []
