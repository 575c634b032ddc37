"""Routing: which experts a token visits, and with which weights."""

from __future__ import annotations

import torch

from upcurve.engine.platform import overlapping, runs_kernels, tl, triton, wait_for_inputs

MOST_EXPERTS, MOST_CHOICES = 512, 16
"""Of the kernel: a row is one tile, and every choice a round."""
LEAST_32, LEAST_64 = tl.constexpr(-(2**31)), tl.constexpr(-(2**63))
"""What has been taken."""
FEW_TOKENS = 1024
"""Up to so many, a program has one row: all of them run at once."""


def route_reference(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax over all experts, top-k, divide by the sum: one operation at a time.

    Args:
        logits: [T, E].
        top_k: experts per token.

    Returns:
        Weights float32 [T, K], which sum to 1, and expert ids int32 [T, K]: the largest first, and
        of equal ones that with the lowest id.
    """
    probabilities = torch.softmax(logits.float(), dim=-1)
    weights, ids = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    weights, ids = weights[:, :top_k], ids[:, :top_k]
    return weights / weights.sum(-1, keepdim=True), ids.to(torch.int32)


def shared_weight(shared_logit: torch.Tensor, shared_scale: float = 1.0) -> torch.Tensor:
    """Return sigmoid(gate) times what the shared expert counts, in the shape and type of the gate.

    Args:
        shared_logit: the shared expert's gate.
        shared_scale: one over the ranks that all compute it and are summed.
    """
    weight = torch.sigmoid(shared_logit)
    # A product with 1 would be a launch in every layer.
    return weight if shared_scale == 1.0 else weight * shared_scale


def append_shared(
    weights: torch.Tensor,
    ids: torch.Tensor,
    shared_logit: torch.Tensor,
    shared_id: int,
    shared_scale: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Append the shared expert as one more choice of every token.

    Its weight is sigmoid(gate) and no part of the renormalisation.

    Args:
        weights: float32 [T, K].
        ids: int32 [T, K].
        shared_logit: [T], the shared expert's gate.
        shared_id: the row of the expert tensors that holds the shared expert.
        shared_scale: as `shared_weight`.

    Returns:
        Weights float32 [T, K + 1] and ids int32 [T, K + 1].
    """
    shared = shared_weight(shared_logit.float(), shared_scale).unsqueeze(-1)
    return torch.cat([weights, shared], -1), torch.cat(
        [ids, ids.new_full((len(ids), 1), shared_id)], -1
    )


def own(
    weights: torch.Tensor, ids: torch.Tensor, owned: range, nobody: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the choices whose experts a rank has.

    Args:
        weights: float32 [T, K].
        ids: int32 [T, K].
        owned: the experts that it has.
        nobody: the id of all others.

    Returns:
        Weights, 0 for all others; ids that count from the first of its own.
    """
    mine = (ids >= owned.start) & (ids < owned.stop)
    return weights * mine, torch.where(mine, ids - owned.start, nobody)


def route(
    logits: torch.Tensor,
    top_k: int,
    *,
    shared: bool,
    shared_scale: float = 1.0,
    owned: range | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose from the logits and weigh by a softmax of the chosen: the full denominator cancels.

    Args:
        logits: [T, E], or [T, E + 1] where the shared expert's gate is the last column; the last
            dimension contiguous, bfloat16 or float32.
        top_k: experts per token, without the shared one.
        shared: append the shared expert, with id E and weight sigmoid(gate).
        shared_scale: as `append_shared`.
        owned: the experts that this rank has, as `own`; all where None. The shared one follows
            them, and nobody follows it.

    Returns:
        As `route_reference`, or with `append_shared`; ties likewise. A token with a NaN gets NaN.
    """
    experts = logits.shape[1] - shared
    few = experts <= MOST_EXPERTS and top_k <= MOST_CHOICES
    if few and runs_kernels(logits.device):
        return route_in_one(logits, top_k, shared=shared, shared_scale=shared_scale, owned=owned)
    chosen, ids = torch.sort(logits[:, :experts].float(), dim=-1, descending=True, stable=True)
    weights = torch.softmax(chosen[:, :top_k], dim=-1)
    ids = ids[:, :top_k].to(torch.int32)
    shared_id = experts
    if owned is not None:
        shared_id = len(owned)
        weights, ids = own(weights, ids, owned, shared_id + shared)
    if not shared:
        return weights, ids.contiguous()
    return append_shared(weights, ids, logits[:, experts], shared_id, shared_scale)


def route_in_one(
    logits: torch.Tensor,
    top_k: int,
    *,
    shared: bool,
    shared_scale: float = 1.0,
    owned: range | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `route` in one launch, for up to 512 experts and 16 choices."""
    tokens, columns = logits.shape
    assert logits.stride(1) == 1
    size = (tokens, top_k + shared)
    weights = torch.empty(size, dtype=torch.float32, device=logits.device)
    ids = torch.empty(size, dtype=torch.int32, device=logits.device)
    rows = 1 if tokens <= FEW_TOKENS else 4
    experts = columns - shared
    if tokens:
        _route[(triton.cdiv(tokens, rows),)](
            *(logits, weights, ids, tokens, logits.stride(0), shared_scale),
            0 if owned is None else owned.start,
            owned=experts if owned is None else len(owned),
            experts=experts,
            top_k=top_k,
            shared=shared,
            lanes=triton.next_power_of_2(experts),
            choices=triton.next_power_of_2(top_k + shared),
            rows=rows,
            num_warps=rows,
            **overlapping(logits.device),
        )
    return weights, ids


@triton.jit(do_not_specialize=["tokens", "first_owned"])  # type: ignore[untyped-decorator]
def _route(
    logits: tl.tensor,
    weights: tl.tensor,
    ids: tl.tensor,
    tokens: tl.tensor,
    row_stride: tl.tensor,
    shared_scale: tl.tensor,
    first_owned: tl.tensor,
    owned: tl.constexpr,
    experts: tl.constexpr,
    top_k: tl.constexpr,
    shared: tl.constexpr,
    lanes: tl.constexpr,
    choices: tl.constexpr,
    rows: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Take the largest, K times: a number that orders as logit, then as the lowest id."""
    wait_for_inputs(early)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    is_row = row < tokens
    lane = tl.arange(0, lanes)
    start = logits + row.to(tl.int64) * row_stride
    inside = is_row[:, None] & (lane < experts)[None, :]
    # Below every logit, minus infinity included, because its id is higher.
    logit = tl.load(start[:, None] + lane[None, :], mask=inside, other=float("-inf"))
    if shared:
        gate = tl.load(start + experts, mask=is_row, other=0.0).to(tl.float32)
    narrow: tl.constexpr = logit.dtype == tl.bfloat16
    if narrow:
        bits = logit.to(tl.int16, bitcast=True).to(tl.int32)
        # NaN is the largest, whatever its sign, so that it is seen.
        bits = tl.where((bits & 0x7FFF) > 0x7F80, 0x7FC0, bits)
        # Of negative numbers the larger has the smaller bits.
        order = (bits ^ ((bits >> 15) & 0x7FFF)) * 65536 + (65535 - lane)[None, :]
    else:
        wide = logit.to(tl.float32).to(tl.int32, bitcast=True)
        wide = tl.where((wide & 0x7FFFFFFF) > 0x7F800000, 0x7FC00000, wide)
        wide = (wide ^ ((wide >> 31) & 0x7FFFFFFF)).to(tl.int64)
        order = wide * 65536 + (65535 - lane)[None, :].to(tl.int64)
    choice = tl.arange(0, choices)
    chosen = tl.full([rows, choices], float("-inf"), tl.float32)
    chosen_id = tl.zeros([rows, choices], tl.int32)
    for index in tl.static_range(top_k):
        best = tl.max(order, 1)
        order = tl.where(order == best[:, None], LEAST_32 if narrow else LEAST_64, order)
        best_id = 65535 - (best & 65535).to(tl.int32)
        high = (best >> 16).to(tl.int32)
        if narrow:
            high = high ^ ((high >> 15) & 0x7FFF)
            value = (high << 16).to(tl.float32, bitcast=True)
        else:
            value = (high ^ ((high >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
        is_choice = (choice == index)[None, :]
        chosen = tl.where(is_choice, value[:, None], chosen)
        chosen_id = tl.where(is_choice, best_id[:, None], chosen_id)
    grown = tl.exp(chosen - tl.max(chosen, 1)[:, None])
    weight = grown / tl.sum(grown, 1)[:, None]
    width: tl.constexpr = top_k + shared
    if owned < experts:
        local_id = chosen_id - first_owned
        mine = (local_id >= 0) & (local_id < owned)
        chosen_id = tl.where(mine, local_id, owned + shared)
        weight = tl.where(mine, weight, 0.0)
    if shared:
        is_shared = (choice == top_k)[None, :]
        weight = tl.where(is_shared, (tl.sigmoid(gate) * shared_scale)[:, None], weight)
        chosen_id = tl.where(is_shared, owned, chosen_id)
    at = row.to(tl.int64)[:, None] * width + choice[None, :]
    written = is_row[:, None] & (choice < width)[None, :]
    tl.store(weights + at, weight, mask=written)
    tl.store(ids + at, chosen_id, mask=written)
