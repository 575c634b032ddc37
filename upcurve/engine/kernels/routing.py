"""Routing: which experts a token visits, and with which weights."""

from __future__ import annotations

import torch


def route_reference(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax over all experts, top-k, divide by the sum.

    Args:
        logits: [T, E].
        top_k: experts per token.

    Returns:
        Weights float32 [T, K], which sum to 1, and expert ids int64 [T, K]. Which of two experts
        with equal logits comes first, or is chosen at all, is left to torch.topk.
    """
    probabilities = torch.softmax(logits.float(), dim=-1)
    weights, ids = torch.topk(probabilities, top_k, dim=-1)
    return weights / weights.sum(-1, keepdim=True), ids


def route_fused(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same from the chosen logits alone: the full denominator cancels."""
    chosen, ids = torch.topk(logits.float(), top_k, dim=-1)
    return torch.softmax(chosen, dim=-1), ids


def append_shared(
    weights: torch.Tensor, ids: torch.Tensor, shared_logit: torch.Tensor, shared_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Append the shared expert as one more choice of every token.

    Its weight is sigmoid(gate) and no part of the renormalisation.

    Args:
        weights: float32 [T, K].
        ids: int64 [T, K].
        shared_logit: [T], the shared expert's gate.
        shared_id: the row of the expert tensors that holds the shared expert.

    Returns:
        Weights float32 [T, K + 1] and ids int64 [T, K + 1].
    """
    shared = torch.sigmoid(shared_logit.float()).unsqueeze(-1)
    return torch.cat([weights, shared], -1), torch.cat(
        [ids, ids.new_full((len(ids), 1), shared_id)], -1
    )
