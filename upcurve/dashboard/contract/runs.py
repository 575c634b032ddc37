"""Answers about runs: the list, one run, one point's requests, attribution, accuracy, events."""

from __future__ import annotations

from typing import Any, Literal

from upcurve.dashboard.contract.common import Answer, Interval, Link
from upcurve.dashboard.contract.curves import Loose


class RunItem(Answer):
    """One run in the list."""

    id: str
    series: str
    source: Literal["sweep", "bench", "import"]
    status: Literal["running", "complete", "interrupted", "failed"]
    note: str | None
    model: str
    hardware: str
    precision: str
    engine: str
    engine_version: str
    started_at: str
    ended_at: str | None
    points: int
    change: Link | None


class RunList(Answer):
    """`GET /api/v1/runs`: newest first."""

    total: int
    offset: int
    items: list[RunItem]


class RunPoint(Answer):
    """One measured point of a run."""

    id: int
    isl: int
    osl: int
    layout: str
    """In words: TP2 EP2, TP1 on 1 + 3 GPUs."""
    tp: int
    gpus: int
    concurrency: int
    repeat: int
    measured_at: str
    tput_per_gpu: float
    input_tput_per_gpu: float | None
    output_tput_per_gpu: float | None
    interactivity: float
    tpot_ms: float | None
    ttft_ms: float | None
    e2e_ms: float | None
    requests: int | None
    failed: int | None
    watts_per_gpu: float | None
    accuracy: dict[str, Any] | None
    timeline: bool
    """Whether its requests were kept: /points/{id}/timeline answers."""


class Log(Answer):
    """The end of a run's server log."""

    text: str
    bytes: int
    """Of the whole log."""
    shown: int
    """Bytes in `text`."""


class RunDetail(Answer):
    """`GET /api/v1/runs/{id}`."""

    run: RunItem
    fingerprint: str
    engine_commit: str
    image: str
    harness_version: str
    recipe: dict[str, Any]
    command: str | None
    """The launch as one could type it."""
    host: dict[str, Any]
    gpus: list[dict[str, Any]]
    software: dict[str, Any]
    points: list[RunPoint]
    log: Log | None


class Request(Answer):
    """One request; times in ms from the first request sent."""

    index: int
    stream: int
    warm_up: bool
    scheduled: float
    """When it was due."""
    sent: float
    first: float | None
    """First token."""
    last: float | None
    """Last token."""
    ended: float
    input_tokens: int | None
    output_tokens: int | None
    failure: str | None


class Load(Answer):
    """What the server said of itself along the point."""

    at: list[float]
    """ms from the first request sent."""
    running: list[float | None]
    waiting: list[float | None]


class Timeline(Answer):
    """`GET /api/v1/points/{id}/timeline`.

    Queue: due to sent, in the client. Prefill: sent to first token, the server's own queue
    included, which a client cannot see; `load` shows it where the server reports it. Decode: first
    to last token.
    """

    point: RunPoint
    run: str
    series: str
    total: int
    offset: int
    requests: list[Request]
    """In the order they were sent."""
    load: Load | None


class Share(Loose):
    """One bar as `upcurve ablate --json` prints it."""

    switch: str | None
    log_ratio: dict[str, Any]
    usd: dict[str, Any] | None


class Bar(Answer):
    """One bar of the waterfall, in tok/s/GPU."""

    name: str
    start: float
    end: float
    low: float | None
    high: float | None
    level: bool


class AttributionTarget(Loose):
    """One target as `upcurve ablate --json` prints it."""

    interactivity: float
    shares: list[Share]


class Ablation(Loose):
    """Exactly the object that `upcurve ablate --json` prints."""

    switches: list[str]
    design: Literal["full", "shapley", "one"]
    seed: int
    rounds: int
    targets: list[AttributionTarget]
    notes: list[str]


class OneAttribution(Answer):
    """One ablation of the store."""

    id: str
    title: str
    """Recipe, model, hardware, workload."""
    group: str
    measured_on: str
    ablation: Ablation
    headlines: list[str]
    """One for each target."""
    waterfalls: list[list[Bar]]
    """One for each target; empty where it has no shares."""
    reached: Interval | None
    """Interactivities that every configuration reaches."""


class Attribution(Answer):
    """`GET /api/v1/attribution`."""

    items: list[OneAttribution]
    """Newest first."""


class AccuracyPoint(Answer):
    """Accuracy at one operating point."""

    series: str
    run: str
    point: int
    group: str
    hardware: str
    layout: str
    """In words: TP2 EP2, TP1 on 1 + 3 GPUs."""
    tp: int
    gpus: int
    concurrency: int
    interactivity: float
    tput_per_gpu: float
    measured_on: str
    task: str
    score: float | None
    interval: Interval | None
    """As recorded; else Wilson's, where the number of items is known."""
    items: int | None
    passed: bool | None
    threshold: float | None
    recorded: dict[str, Any]


class Accuracy(Answer):
    """`GET /api/v1/accuracy`."""

    total: int
    items: list[AccuracyPoint]
    """Newest first, at most 500."""
    unchecked: list[str]
    """Series of the group without any accuracy."""


class NewPoint(Answer):
    """A point that was added while the page was open."""

    id: int
    run: str
    series: str
    group: str
    isl: int
    osl: int
    tp: int
    gpus: int
    concurrency: int
    repeat: int
    interactivity: float
    tput_per_gpu: float


class Event(Answer):
    """Data of an event `store` on `GET /api/v1/events`."""

    store_version: str
    points: list[NewPoint]
    """Those added since the event before; at most 200."""
    running: list[RunItem]
    """Runs that are under way."""


class Reported(Answer):
    """`POST /api/v1/runs`: what was added. The same body again adds nothing."""

    added: dict[str, int]
    already_there: dict[str, int]
    unknown_columns: list[str]
    warnings: list[str]
