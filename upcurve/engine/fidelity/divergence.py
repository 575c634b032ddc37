"""Statistics of two models' logits over the same tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

ROWS_AT_ONCE = 64
"""Rows that are held in float64: a large vocabulary makes half a megabyte of each in float32."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far the distributions of a text's tokens lie from those of a reference.

    KL is the Kullback-Leibler divergence of the found distribution from the reference's,
    sum p (log p - log q), in nats; infinite where logits are not finite.
    """

    tokens: int
    kl_mean: float
    kl_error: float
    """Standard error of the mean: where few tokens are uncertain, they make all of it."""
    kl_p99: float
    kl_max: float
    worst: str
    """The passage with the largest mean KL: what leaks from one request to another is in few."""
    worst_kl: float
    agreement: float
    """Share of the tokens whose most likely one is the reference's."""
    perplexity: float
    """exp of the mean negative log likelihood of the text's tokens; that of what was found."""


def kl_of_rows(wanted: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """Return the KL divergence of each row, float64 [T].

    Args:
        wanted: logits of the reference, [T, vocab].
        found: logits, [T, vocab].
    """
    parts = []
    pairs = zip(wanted.split(ROWS_AT_ONCE), found.split(ROWS_AT_ONCE), strict=True)
    for p, q in pairs:
        # In float64: float32 rounds away what two orders of a sum differ by.
        p, q = (each.to(torch.float64).log_softmax(-1) for each in (p, q))
        kl = (p.exp() * (p - q)).sum(-1)
        parts.append(torch.where(kl.isfinite(), kl.clamp_min(0), torch.inf))
    return torch.cat(parts)


def diverge(
    wanted: Mapping[str, torch.Tensor],
    found: Mapping[str, torch.Tensor],
    outputs: Mapping[str, Sequence[int]],
) -> Divergence:
    """Compare the logits of passages.

    Args:
        wanted: by passage: the reference's logits, [output, vocab].
        found: likewise.
        outputs: by passage: the tokens whose distributions the rows are.
    """
    by_passage = {name: kl_of_rows(wanted[name], found[name]) for name in wanted}
    kl = torch.cat(list(by_passage.values()))
    means = {name: each.mean().item() for name, each in by_passage.items()}
    worst = max(means, key=lambda name: means[name])
    same = [(wanted[name].argmax(-1) == found[name].argmax(-1)).double() for name in wanted]
    return Divergence(
        tokens=len(kl),
        kl_mean=kl.mean().item(),
        kl_error=kl.std(correction=0).item() / math.sqrt(len(kl)),
        # Of infinities and numbers no interpolation is a number.
        kl_p99=kl.quantile(0.99, interpolation="higher").item(),
        kl_max=kl.max().item(),
        worst=worst,
        worst_kl=means[worst],
        agreement=torch.cat(same).mean().item(),
        perplexity=perplexity(found, outputs),
    )


def perplexity(found: Mapping[str, torch.Tensor], outputs: Mapping[str, Sequence[int]]) -> float:
    """Return exp of the mean negative log likelihood of the tokens; infinite where not finite.

    Args:
        found: by passage: logits [output, vocab].
        outputs: by passage: its tokens.
    """
    parts = []
    for name, logits in found.items():
        tokens = torch.as_tensor(outputs[name], device=logits.device).unsqueeze(-1)
        chosen = logits.gather(-1, tokens).squeeze(-1).double()
        parts.append(logits.double().logsumexp(-1) - chosen)
    value = torch.cat(parts).mean().exp().item()
    return math.inf if math.isnan(value) else value
