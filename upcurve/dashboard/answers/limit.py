"""The speed-of-light line of a model on a GPU, on the axes of the frontier chart."""

from __future__ import annotations

from datetime import date

from upcurve.dashboard.answers.axes import X_AXES, Y_AXES, provisioned_kw
from upcurve.dashboard.contract.curves import Limit, LimitPoint
from upcurve.dashboard.contract.questions import LimitQuestion
from upcurve.dashboard.reader import Reader
from upcurve.errors import InputError
from upcurve.frontier.cost import usd_per_million_tokens
from upcurve.limits.line import LinePoint, every_point, line
from upcurve.limits.shape import Precision, find_shape
from upcurve.records.chips import assumptions, chip
from upcurve.records.compared import Pricing
from upcurve.records.published import prices as published_prices


def limit(reader: Reader, question: LimitQuestion) -> Limit:
    """Answer `limit`."""
    model, isl, osl = question.model, question.isl, question.osl
    hardware, precision, on = question.hardware, question.precision, question.on
    if question.group is not None:
        group = reader.catalogue().group(question.group)
        model, isl, osl = group.model, group.isl, group.osl
        hardware = hardware or min(group.hardware)
        on = on or group.last.date()
        bf16 = group.precisions and group.precisions <= {"bf16", "bfloat16"}
        precision = precision or ("bf16" if bf16 else "fp8")
    if model is None or isl is None or osl is None or hardware is None:
        mend = "give group, or model, isl, osl and hardware"
        raise InputError("group", "no workload is chosen", mend)
    found = Limit(
        x=X_AXES[question.x],
        y=Y_AXES[question.y],
        model=model,
        hardware=hardware,
        precision=precision or "fp8",
        points=[],
        assumptions=[],
        reason=None,
    )
    try:
        _draw(found, question, (isl, osl), precision or "fp8", on)
    except InputError as error:
        found.points = []
        found.reason = f"{error.problem}; {error.mend}"
    return found


def _draw(
    found: Limit,
    question: LimitQuestion,
    workload: tuple[int, int],
    precision: Precision,
    on: date | None,
) -> None:
    shape = find_shape(found.model)
    if shape is None:
        found.reason = "the shape of this model is not known"
        return
    if question.x == "ttft":
        found.reason = "the first token's limit does not depend on throughput"
        return
    if question.y == "joules":
        found.reason = "energy has no limit of this kind"
        return
    own = chip(found.hardware)
    pricing = question.pricing()
    scale, words = _scale(question, workload, found.hardware, pricing, on)
    points = every_point(shape, precision, own, *workload)
    knots = line(points, latency=question.x == "e2e")
    falling = not Y_AXES[question.y].higher_is_better
    found.points = [_point(each, question, scale, falling=falling) for each in knots]
    found.assumptions = [*assumptions(own, precision), *words]


def _scale(
    question: LimitQuestion,
    workload: tuple[int, int],
    hardware: str,
    pricing: Pricing,
    on: date | None,
) -> tuple[float, list[str]]:
    """Return what total throughput is multiplied by, or what is divided by it."""
    isl, osl = workload
    if question.y == "input":
        return isl / (isl + osl), []
    if question.y == "output":
        return osl / (isl + osl), []
    if question.y == "per_mw":
        power = provisioned_kw(hardware, pricing, on)
        if power is None:
            raise InputError("kw", "the power of this hardware is not known", "give kw")
        return 1000 / power[0], [f"{power[1]}."]
    if question.y == "cost":
        if hardware in pricing.given:
            price = pricing.given[hardware]
            words = f"Price: {hardware} ${price:g} per GPU-hour (as given)."
        else:
            known = published_prices().lookup(hardware, pricing.tier, on or date.max)
            price, words = known.usd_per_gpu_hour, f"Price: {known.describe()}."
        return usd_per_million_tokens(price, 1), [words]
    return 1, []


def _point(each: LinePoint, question: LimitQuestion, scale: float, *, falling: bool) -> LimitPoint:
    tput = each.tput_per_gpu
    return LimitPoint(
        x=each.interactivity if question.x == "interactivity" else each.e2e_ms,
        y=scale / tput if falling else scale * tput,
        batch=each.batch,
        gpus=each.gpus,
        step_ms=1000 * each.step_s,
        bound=each.bound,
    )
