"""The prefill kernels of the gated delta rule against the rule itself, token by token."""

from __future__ import annotations

import pytest
import torch

from upcurve.engine.kernels.gated_delta import recurrence_reference
from upcurve.engine.kernels.gated_delta_scan import scan


def unit64(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def draw(
    batch: int, key_heads: int, share: int, key_dim: int, value_dim: int, seed: int
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    heads = key_heads * share
    # Rows of a wider tensor, as the split of a joint projection has them.
    wide = normal(batch, 2 * key_heads * key_dim + heads * value_dim + 2 * heads)
    qkv, a, b = wide.split([wide.shape[1] - 2 * heads, heads, heads], -1)
    return {
        "qkv": qkv,
        "a": a * 10,
        "b": b * 3,
        "a_log": normal(heads),
        "dt_bias": normal(heads) * 10,
        "states": normal(6, heads, key_dim, value_dim),
    }


def exact(
    values: dict[str, torch.Tensor], state: torch.Tensor, key_heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
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


def inputs(length: int, seed: int, **sizes: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    shape = {"key_heads": 1, "share": 2, "key_dim": 16, "value_dim": 16} | sizes
    values = draw(length, *shape.values(), seed=seed)
    # Decays like a trained model's: from one token to a thousand.
    values["dt_bias"] = values["dt_bias"] / 5 - 4
    values["a"] = values["a"] / 10
    return values, values.pop("states")[0].clone()


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
    values, state = inputs(length, seed=length, **sizes)
    key_heads = sizes.get("key_heads", 1)
    want, new = exact(values, state, key_heads)
    got = scan(**values, state=state, key_heads=key_heads)
    torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(state.double(), new, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("cut", [1, 64, 70])
def test_a_sequence_may_be_split_anywhere(cut: int) -> None:
    values, state = inputs(100, seed=5)
    want, new = exact(values, state, 1)
    parts = []
    for rows in (slice(cut), slice(cut, None)):
        part = {name: x[rows] if name in ("qkv", "a", "b") else x for name, x in values.items()}
        parts.append(scan(**part, state=state, key_heads=1))
    torch.testing.assert_close(torch.cat(parts).double(), want, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(state.double(), new, atol=2e-5, rtol=1e-4)


def test_keys_that_are_nearly_parallel_and_never_forgotten() -> None:
    """The hardest system: all ones below the diagonal."""
    values, state = inputs(64, seed=3)
    values["qkv"][:, 16:32] = values["qkv"][0, 16:32] + 1e-3 * values["qkv"][:, 16:32]
    values["b"].fill_(20.0)
    values["a_log"].fill_(-20.0)
    want, new = exact(values, state, 1)
    got = scan(**values, state=state, key_heads=1)
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(state.double(), new, atol=1e-4, rtol=1e-3)


def test_a_bfloat16_state_is_rounded_once() -> None:
    values, state = inputs(40, seed=4)
    narrow = state.to(torch.bfloat16)
    want, new = exact(values, narrow.float(), 1)
    got = scan(**values, state=narrow, key_heads=1)
    torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=1e-4)
    # The interpreter cuts to bfloat16 where the device rounds: one step of eight bits.
    torch.testing.assert_close(narrow.double(), new, atol=1e-3, rtol=2**-7)


def test_a_decay_of_a_millionth_a_token_is_not_rounded_off() -> None:
    values, state = inputs(200, seed=6)
    values["a"].fill_(0.0)
    values["dt_bias"].fill_(-14.2)
    values["a_log"].fill_(2.77)
    values["b"].fill_(-40.0)
    _, new = exact(values, state, 1)
    scan(**values, state=state, key_heads=1)
    torch.testing.assert_close(state.double(), new, atol=0, rtol=1e-5)
