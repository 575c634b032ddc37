"""Prefill and decode workers as processes give the tokens of one engine, whatever happens."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.parallel.test_layouts import draw_prompts, write_config
from tests.engine.quick_processes import quick_processes
from tests.engine.roles.one_engine import OneEngine
from tests.engine.roles.workers import Worker, connected, workers
from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.schedule.request import SamplingParameters

OPTIONS = EngineOptions(
    device="cpu",
    dtype="fp32",
    load_format="dummy",
    max_running_requests=6,
    context_length=2048,
    max_batch_tokens=32,
    page_size=8,
    check_memory=True,
    threads=1,
    # However busy the machine is.
    prefill_timeout=60.0,
)
PREFILL, DECODE = replace(OPTIONS, role="prefill"), replace(OPTIONS, role="decode")
LENGTHS = [20, 1, 75, 40, 5, 32, 130, 2, 64, 33]
"""One token, whole chunks, several of them; more requests than run at once."""
LONG = 2000
"""Takes many steps."""


@pytest.fixture(scope="module", autouse=True)
def processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, quick_processes(patch):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(
        tmp_path_factory.mktemp("model"),
        num_hidden_layers=3,
        full_attention_interval=2,
        max_position_embeddings=2048,
    )


def sampling(number: int, count: int = 7) -> SamplingParameters:
    """Greedy and seeded ones in turn."""
    greedy = number % 2 == 0
    return SamplingParameters(
        max_tokens=count,
        temperature=0 if greedy else 1,
        seed=None if greedy else number,
        top_k=0 if greedy else 20,
        ignore_eos=True,
        logprobs=2 if number % 3 == 0 else None,
    )


@pytest.fixture(scope="module")
def one_engine(folder: Path) -> OneEngine:
    return OneEngine(folder, OPTIONS)


@pytest.mark.parametrize(
    ("prefill", "decode", "transfer"),
    [(1, 1, "tcp"), (1, 1, "copy"), (1, 2, "tcp"), (2, 1, "copy"), (2, 2, "tcp"), (4, 2, "tcp"),
     (2, 4, "copy")],
)  # fmt: skip
def test_each_pair_of_layouts(
    folder: Path, one_engine: OneEngine, prefill: int, decode: int, transfer: str
) -> None:
    prompts = draw_prompts(prefill, LENGTHS)
    samplings = [sampling(number) for number in range(len(prompts))]
    tokens, first = one_engine.generate(prompts, samplings)
    with workers(
        folder,
        replace(PREFILL, tp=prefill, transfer=transfer),
        replace(DECODE, tp=decode, transfer=transfer),
    ) as (helper, worker):
        for number, prompt in enumerate(prompts):
            worker.submit(str(number), prompt, samplings[number])
        worker.ended()
        assert [worker.tokens[str(number)] for number in range(len(prompts))] == tokens
        for number, expected in enumerate(first):
            got = worker.events[str(number)][0].logprobs
            assert (got is None) == (expected is None)
            if got is not None and expected is not None:
                assert got.chosen == pytest.approx(expected.chosen, abs=1e-4)
                assert [each for each, _ in got.top] == [each for each, _ in expected.top]
        for each in (worker, helper):
            each.counted(done=len(prompts), tokens=sum(LENGTHS))
            each.idle()
        assert worker.counts.local == worker.counts.failed == helper.counts.failed == 0
        assert helper.counts.bytes > 0
        assert 0 < helper.counts.exposed_seconds < helper.counts.seconds < worker.counts.seconds


def begin_long(worker: Worker, helper: Worker, prompts: list[list[int]]) -> None:
    """Ask for long prompts, and wait until one is being sent."""
    for number, prompt in enumerate(prompts):
        worker.submit(str(number), prompt, sampling(number))
    before = helper.steps
    helper.until(lambda: helper.steps > before + 3, "computed")


@pytest.mark.parametrize("transfer", ["tcp", "copy"])
@pytest.mark.parametrize("others", [0, 1])
def test_a_prefill_worker_that_is_killed(
    folder: Path, one_engine: OneEngine, transfer: str, others: int
) -> None:
    """Its prompts begin anew, at another or at the decode worker; one that comes later gets new."""
    prompts = draw_prompts(7, [LONG, 300, 20])
    tokens, _ = one_engine.generate(prompts, [sampling(number) for number in range(3)])
    helping = replace(PREFILL, transfer=transfer)
    with workers(folder, *[helping] * (1 + others), replace(DECODE, transfer=transfer)) as (
        first,
        *more,
    ):
        *rest, worker = more
        begin_long(worker, first, prompts)
        first.signal(signal.SIGKILL)
        worker.ended()
        assert [worker.tokens[str(number)] for number in range(3)] == tokens
        worker.idle()
        assert worker.counts.failed >= 1
        states = {each.state for each in worker.prefill_workers}
        assert states == ({"down", "up"} if others else {"down"})
        if others:
            assert worker.counts.retried >= 1
            assert worker.counts.local == 0
            rest[0].idle()
            return
        assert worker.counts.local >= 1
        first.close()
        # The next one that listens there maps or reaches the memory here anew.
        port, done = int(first.address.partition(":")[2]), worker.counts.done
        again = Worker(folder, helping, port).wait()
        try:
            worker.until(lambda: connected(worker, 1), "found again")
            worker.submit("after", prompts[1], sampling(1))
            worker.ended("after")
            assert worker.tokens["after"] == tokens[1]
            worker.counted(done=done + 1)
            again.counted(done=1)
            worker.idle()
        finally:
            again.close()


@pytest.mark.parametrize("transfer", ["tcp", "copy"])
def test_a_decode_worker_that_is_killed(folder: Path, transfer: str) -> None:
    """The prefill worker drops what it asked for, frees its memory and serves the next one."""
    prompts = draw_prompts(8, [LONG, LONG, LONG])
    helping, asking = (replace(each, transfer=transfer) for each in (PREFILL, DECODE))
    with workers(folder, helping, asking, asking) as (helper, first, second):
        begin_long(first, helper, prompts)
        first.signal(signal.SIGKILL)
        second.submit("next", prompts[0][:50], sampling(0))
        second.ended()
        helper.counted(done=1)
        helper.until(lambda: helper.counts.cancelled >= 1, "cancelled")
        helper.idle()
        assert helper.counts.done == second.counts.done == 1


@pytest.mark.parametrize("transfer", ["tcp", "copy"])
def test_a_prefill_worker_that_is_stopped(
    folder: Path, one_engine: OneEngine, transfer: str
) -> None:
    """After a time-out its prompts are computed here; memory that it may write to is kept."""
    prompts = draw_prompts(9, [LONG, 20])
    tokens, _ = one_engine.generate(prompts, [sampling(number) for number in range(2)])
    asking = replace(DECODE, transfer=transfer, prefill_timeout=4.0)
    with workers(folder, replace(PREFILL, transfer=transfer), asking) as (helper, worker):
        begin_long(worker, helper, prompts)
        helper.signal(signal.SIGSTOP)
        worker.ended()
        assert [worker.tokens[str(number)] for number in range(2)] == tokens
        assert worker.counts.local >= 1
        if transfer == "tcp":
            # What comes late is not written any more.
            worker.idle()
        else:
            assert worker.counts.kept == worker.status.slots == worker.counts.failed
        helper.signal(signal.SIGCONT)
        worker.idle()
        helper.idle()
        worker.until(lambda: connected(worker, 1), "found again")
        worker.submit("after", prompts[1], sampling(1))
        worker.ended("after")
        assert worker.tokens["after"] == tokens[1]
        assert worker.counts.done >= 1


def test_aborts_at_any_time(folder: Path, one_engine: OneEngine) -> None:
    prompts = draw_prompts(10, [LONG, 600, 90, 40, 300, 20])
    tokens, _ = one_engine.generate(prompts, [sampling(number) for number in range(6)])
    with workers(folder, PREFILL, DECODE) as (helper, worker):
        for turn in range(3):
            for number, prompt in enumerate(prompts):
                worker.submit(f"{turn}-{number}", prompt, sampling(number))
            before = helper.steps
            helper.until(lambda: helper.steps > before + 2 * turn, "computed")  # noqa: B023
            for number in range(4):
                worker.abort(f"{turn}-{number}")
            worker.ended(f"{turn}-4", f"{turn}-5")
            for number in (4, 5):
                assert worker.tokens[f"{turn}-{number}"] == tokens[number]
        worker.ended()
        worker.idle()
        helper.idle()
        assert worker.counts.cancelled >= 3


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kv_cache_dtype": "fp8"}, "dtype of keys and values"),
        ({"state_dtype": "bf16"}, "dtype of recurrent states"),
        ({"page_size": 16}, "page size"),
        ({"seed": 1}, "weights"),
    ],
)
def test_workers_that_do_not_agree(folder: Path, changes: dict[str, object], field: str) -> None:
    """A decode worker that is started with such a one ends with a line that names the field."""
    helper = Worker(folder, PREFILL).wait()
    try:
        worker = Worker(folder, replace(DECODE, prefill=(helper.address,), **changes))
        try:
            with pytest.raises(EngineInputError, match=f"^{field}: .* here, .*{helper.address}"):
                worker.wait()
        finally:
            worker.close()
    finally:
        helper.close()


def test_an_address_that_can_be_none_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    worker = Worker(tmp_path / "none", replace(DECODE, prefill=(f"{'a' * 64}:1",)))
    try:
        with pytest.raises(EngineInputError, match=r"^prefill: a+ is not known here: "):
            worker.wait()
    finally:
        worker.close()


def test_a_prefill_worker_that_comes_back_with_another_layout_is_refused(
    folder: Path, one_engine: OneEngine
) -> None:
    prompt = draw_prompts(11, [30])[0]
    tokens, _ = one_engine.generate([prompt], [sampling(0)])
    with workers(folder, PREFILL, DECODE) as (helper, worker):
        port = helper.address.partition(":")[2]
        helper.close()
        worker.until(lambda: worker.prefill_workers[0].state == "down", "seen that it is gone")
        other = Worker(folder, replace(PREFILL, page_size=16), port=int(port)).wait()
        try:
            worker.until(lambda: worker.prefill_workers[0].state == "refused", "refused")
            assert worker.prefill_workers[0].reason.startswith("page size: ")
            worker.submit("local", prompt, sampling(0))
            worker.ended("local")
            assert worker.tokens["local"] == tokens[0]
            assert worker.counts.local == 1
        finally:
            other.close()


def test_short_prompts_stay_where_they_are(folder: Path, one_engine: OneEngine) -> None:
    prompts = draw_prompts(12, [30, 31])
    tokens, _ = one_engine.generate(prompts, [sampling(0), sampling(1)])
    with workers(folder, PREFILL, replace(DECODE, prefill_below=31)) as (helper, worker):
        for number, prompt in enumerate(prompts):
            worker.submit(str(number), prompt, sampling(number))
        worker.ended()
        assert [worker.tokens["0"], worker.tokens["1"]] == tokens
        assert worker.counts.done == 1
        assert worker.counts.local == 0
        helper.counted(tokens=31)


def test_little_memory_at_both_ends(folder: Path, one_engine: OneEngine) -> None:
    """Requests give way to each other, wait for memory here and there, and all end right."""
    prompts = draw_prompts(13, [60, 50, 40, 30, 60, 50, 40, 30])
    samplings = [sampling(number, 40) for number in range(len(prompts))]
    tokens, _ = one_engine.generate(prompts, samplings)
    few = {"context_length": 104, "max_kv_tokens": 200}
    with workers(
        folder, replace(PREFILL, **few, max_running_requests=2), replace(DECODE, **few)
    ) as (helper, worker):
        for number, prompt in enumerate(prompts):
            worker.submit(str(number), prompt, samplings[number])
        worker.ended()
        assert [worker.tokens[str(number)] for number in range(len(prompts))] == tokens
        assert worker.status.preemptions > 0
        worker.idle()
        helper.idle()
