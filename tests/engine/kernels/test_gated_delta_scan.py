"""The prefill kernels of the gated delta rule against the rule itself, token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.kernels import gated_delta_scan
from upcurve.engine.kernels.gated_delta import recurrence_reference
from upcurve.engine.kernels.gated_delta_scan import ScanLaunch, scan
from upcurve.engine.kernels.sequences import Chunk, Sequences

CPU = torch.device("cpu")
SLOTS = 6


def unit64(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def exact(
    values: dict[str, torch.Tensor], state: torch.Tensor, key_heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and the new state of one sequence in float64."""
    heads, key_dim, value_dim = state.shape
    keys = key_heads * key_dim
    q, k, v = values["qkv"].double().split([keys, keys, heads * value_dim], -1)
    share = heads // key_heads
    q, k = (unit64(x.view(-1, key_heads, key_dim)).repeat_interleave(share, 1) for x in (q, k))
    x = values["a"].double() + values["dt_bias"].double()
    g = -values["a_log"].double().exp() * torch.nn.functional.softplus(x)
    beta = torch.sigmoid(values["b"].double())
    v = v.view(-1, heads, value_dim)
    return recurrence_reference(q * key_dim**-0.5, k, v, g, beta, state.double())


def inputs(
    length: int,
    seed: int,
    *,
    key_heads: int = 1,
    share: int = 2,
    key_dim: int = 16,
    value_dim: int = 16,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Draw tokens, and the states of all slots."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    heads = key_heads * share
    # Rows of a wider tensor, as the split of a joint projection has them.
    wide = normal(length, 2 * key_heads * key_dim + heads * value_dim + 2 * heads)
    qkv, a, b = wide.split([wide.shape[1] - 2 * heads, heads, heads], -1)
    values = {
        "qkv": qkv,
        "a": a,
        "b": b * 3,
        "a_log": normal(heads),
        # Decays like a trained model's: from one token to a thousand.
        "dt_bias": normal(heads) * 2 - 4,
    }
    return values, normal(SLOTS, heads, key_dim, value_dim)


def part(values: dict[str, torch.Tensor], rows: slice) -> dict[str, torch.Tensor]:
    return {name: x[rows] if name in ("qkv", "a", "b") else x for name, x in values.items()}


def one(length: int, context: int = 1, slot: int = 0) -> Sequences:
    return Sequences.of((Chunk(0, length, context, slot),), CPU)


def run(
    values: dict[str, torch.Tensor],
    states: torch.Tensor,
    sequences: Sequences,
    *,
    key_heads: int = 1,
    launch: ScanLaunch | None = None,
) -> torch.Tensor:
    qkv, a, b, a_log, dt_bias = values.values()
    return scan(
        *(qkv, a, b, a_log, dt_bias, states),
        key_heads=key_heads,
        sequences=sequences,
        launch=launch,
    )


def poisoned(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.full(size, torch.nan, dtype=dtype, device=device)


@pytest.fixture(autouse=True)
def nothing_is_read_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.mark.parametrize(
    ("length", "sizes"),
    [
        (1, {}),
        (63, {}),
        (64, {"share": 1}),
        (65, {"key_dim": 8, "value_dim": 12}),
        (150, {"key_heads": 2, "share": 3, "key_dim": 12, "value_dim": 20}),
        (200, {"share": 1, "value_dim": 40}),
    ],
)
def test_a_scan_is_the_rule(length: int, sizes: dict[str, int]) -> None:
    key_heads = sizes.get("key_heads", 1)
    values, states = inputs(length, seed=length, **sizes)
    want, new = exact(values, states[3], key_heads)
    got = run(values, states, key_heads=key_heads, sequences=one(length, slot=3))
    torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(states[3].double(), new, atol=2e-5, rtol=1e-4)


@settings(max_examples=8)
@given(
    lengths=st.lists(
        st.one_of(st.integers(1, 9), st.sampled_from([63, 64, 65, 128])), min_size=1, max_size=5
    ),
    fresh=st.integers(0, 31),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("width", [16, 32])
def test_sequences_are_strangers_to_each_other(
    width: int, lengths: list[int], fresh: int, seed: int
) -> None:
    """Chunks begin with each sequence; without context a slot's state counts for nothing."""
    values, states = inputs(sum(lengths), seed, share=1, value_dim=20)
    slots = torch.randperm(SLOTS, generator=torch.Generator().manual_seed(seed)).tolist()
    chunks, expected, outputs, start = [], states.double(), [], 0
    for index, (length, slot) in enumerate(zip(lengths, slots, strict=False)):
        is_fresh = fresh >> index & 1
        chunks.append(Chunk(start + 7, length, 0 if is_fresh else 5, slot))
        before = torch.zeros_like(states[slot]) if is_fresh else states[slot]
        rows = part(values, slice(start, start + length))
        out, expected[slot] = exact(rows, before, 1)
        outputs.append(out)
        if is_fresh:
            states[slot] = torch.nan
        start += length
    got = run(
        values,
        states,
        sequences=Sequences.of(tuple(chunks), CPU),
        launch=ScanLaunch(width=width, stages=1),
    )
    torch.testing.assert_close(got.double(), torch.cat(outputs), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(states.double(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("cut", [1, 64, 70])
def test_a_sequence_may_be_split_anywhere(cut: int) -> None:
    values, states = inputs(100, seed=5)
    want, new = exact(values, states[0], 1)
    parts = [
        run(part(values, rows), states, sequences=one(length))
        for rows, length in ((slice(cut), cut), (slice(cut, None), 100 - cut))
    ]
    torch.testing.assert_close(torch.cat(parts).double(), want, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(states[0].double(), new, atol=2e-5, rtol=1e-4)


def nearly_parallel() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Draw the hardest system: all ones below the diagonal, and nothing is forgotten."""
    values, states = inputs(64, seed=3)
    values["qkv"][:, 16:32] = values["qkv"][0, 16:32] + 1e-3 * values["qkv"][:, 16:32]
    values["b"].fill_(20.0)
    values["a_log"].fill_(-20.0)
    return values, states


def test_keys_that_are_nearly_parallel_and_never_forgotten() -> None:
    values, states = nearly_parallel()
    want, new = exact(values, states[0], 1)
    got = run(values, states, sequences=one(64))
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(states[0].double(), new, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "hard", "bound"),
    # The interpreter cuts to bfloat16 where a device rounds: errors add up, of one sign.
    [(torch.float16, False, 1e-3), (torch.float16, True, 1e-3), (torch.bfloat16, False, 2e-2)],
)
def test_products_of_a_narrow_model_are_as_good_as_its_numbers(
    dtype: torch.dtype, hard: bool, bound: float
) -> None:
    values, states = nearly_parallel() if hard else inputs(150, seed=8)
    for name in ("qkv", "a", "b"):
        values[name] = values[name].to(dtype)
    want, new = exact(values, states[0], 1)
    got = run(values, states, sequences=one(len(want)))
    assert got.dtype == dtype
    for result, wanted in ((got, want), (states[0], new)):
        assert (result.double() - wanted).norm() < bound * wanted.norm()


def test_a_bfloat16_state_is_rounded_once() -> None:
    values, states = inputs(40, seed=4)
    narrow = states.to(torch.bfloat16)
    want, new = exact(values, narrow[0].float(), 1)
    got = run(values, narrow, sequences=one(40))
    torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=1e-4)
    # The interpreter cuts to bfloat16 where the device rounds: one step of eight bits.
    torch.testing.assert_close(narrow[0].double(), new, atol=1e-3, rtol=2**-7)


def test_a_decay_of_a_millionth_a_token_is_not_rounded_off() -> None:
    values, states = inputs(200, seed=6)
    values["a"].fill_(0.0)
    values["dt_bias"].fill_(-14.2)
    values["a_log"].fill_(2.77)
    values["b"].fill_(-40.0)
    _, new = exact(values, states[0], 1)
    run(values, states, sequences=one(200))
    torch.testing.assert_close(states[0].double(), new, atol=0, rtol=1e-5)


def test_programs_are_as_wide_as_fills_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gated_delta_scan, "multiprocessors", lambda device: 132)
    for heads, count, width in ((16, 1, 16), (32, 1, 32), (64, 1, 64), (32, 8, 64), (1, 1, 16)):
        states = torch.zeros(1, heads, 128, 128)
        assert ScanLaunch.of(states, count, torch.bfloat16).width == width
