"""The decode kernel of the gated delta rule against its reference, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upcurve.engine.kernels.gated_delta import gates, step, unit
from upcurve.engine.kernels.gated_delta_step import step_in_place


def reference(
    qkv: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    a_log: torch.Tensor,
    dt_bias: torch.Tensor,
    states: torch.Tensor,
    key_heads: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and new states, in float64 but for the rounding of unit()."""
    _, heads, key_dim, value_dim = states.shape
    keys = key_heads * key_dim
    q, k, v = qkv.double().split([keys, keys, heads * value_dim], -1)
    share = heads // key_heads
    q, k = (unit64(x.view(-1, key_heads, key_dim)).repeat_interleave(share, 1) for x in (q, k))
    g = -a_log.double().exp() * torch.nn.functional.softplus(a.double() + dt_bias.double())
    new = states.double().clone()
    out = step(
        q * key_dim**-0.5, k, v.view(-1, heads, value_dim), g, torch.sigmoid(b.double()), new
    )
    return out, new


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


@settings(max_examples=30)
@given(
    batch=st.integers(1, 4),
    key_heads=st.integers(1, 2),
    share=st.integers(1, 4),
    key_dim=st.sampled_from([8, 12, 16]),
    value_dim=st.sampled_from([4, 8, 12, 20]),
    seed=st.integers(0, 99),
)
def test_a_step_is_the_references_and_other_slots_stay(
    batch: int, key_heads: int, share: int, key_dim: int, value_dim: int, seed: int
) -> None:
    given_values = draw(batch, key_heads, share, key_dim, value_dim, seed)
    states = given_values.pop("states")
    slots = torch.randperm(6, generator=torch.Generator().manual_seed(seed))[:batch]
    want, new = reference(**given_values, states=states[slots], key_heads=key_heads)
    kept = states.clone()
    got = step_in_place(**given_values, states=states, slots=slots, key_heads=key_heads)
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states[slots].double(), new, atol=1e-4, rtol=1e-4)
    others = [slot for slot in range(6) if slot not in slots.tolist()]
    assert torch.equal(states[others], kept[others])


def test_the_references_gates_are_the_same() -> None:
    values = draw(4, 2, 2, 8, 8, seed=1)
    g, beta = gates(values["a"], values["b"], values["a_log"], values["dt_bias"])
    x = values["a"].double() + values["dt_bias"].double()
    exact = -values["a_log"].double().exp() * torch.nn.functional.softplus(x)
    torch.testing.assert_close(g.double(), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(beta.double(), torch.sigmoid(values["b"].double()))
    assert unit(values["a"]).norm(dim=-1).max() <= 1


def test_many_rows_take_wider_tiles_and_a_shared_padding_slot_stays_finite() -> None:
    values = draw(12, 1, 2, 8, 40, seed=3)
    states = values.pop("states")
    slots = torch.tensor([0, 1, 2, 3, *[5] * 8])
    want, new = reference(
        **{name: x[:4] if name in ("qkv", "a", "b") else x for name, x in values.items()},
        states=states[:4],
        key_heads=1,
    )
    got = step_in_place(**values, states=states, slots=slots, key_heads=1)
    torch.testing.assert_close(got[:4].double(), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states[:4].double(), new, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(states[5]).all()


@pytest.mark.parametrize("bias", [60.0, -60.0])
def test_decay_at_its_ends_is_finite(bias: float) -> None:
    values = draw(2, 1, 1, 8, 8, seed=2)
    values["dt_bias"].fill_(bias)
    states = values.pop("states")
    slots = torch.tensor([1, 4])
    want, new = reference(**values, states=states[slots], key_heads=1)
    got = step_in_place(**values, states=states, slots=slots, key_heads=1)
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states[slots].double(), new, atol=1e-4, rtol=1e-4)


def test_a_bfloat16_state_is_rounded_once() -> None:
    values = draw(2, 2, 2, 16, 16, seed=4)
    states = values.pop("states").to(torch.bfloat16)
    slots = torch.tensor([3, 0])
    want, new = reference(**values, states=states[slots].float(), key_heads=2)
    got = step_in_place(**values, states=states, slots=slots, key_heads=2)
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-4)
    # The interpreter cuts to bfloat16 where the device rounds: one step of eight bits.
    torch.testing.assert_close(states[slots].double(), new, atol=1e-3, rtol=2**-7)
