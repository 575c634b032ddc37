"""Drawing the next tokens from logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from upcurve.engine.execute.event import TokenLogprobs
from upcurve.engine.schedule.request import SamplingParameters

NO_TOKEN = -1
"""Drawn where no token is the most likely one."""


class Sampler:
    """Draws tokens; keeps one random generator for every request that has a seed.

    Rows are drawn in groups of equal kind (greedy, plain, filtered), and a seeded row draws its
    noise from its own generator, so that its tokens do not depend on the rows beside it.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device = device
        self._shared = torch.Generator(device).manual_seed(seed)
        self._seeded: dict[str, torch.Generator] = {}

    def sample(
        self, logits: torch.Tensor, ids: Sequence[str], parameters: Sequence[SamplingParameters]
    ) -> list[int]:
        """Draw one token for each row; NO_TOKEN where its largest logit is not finite.

        Args:
            logits: float32 [R, vocab].
            ids: the request of each row.
            parameters: of each row.
        """
        # A NaN anywhere in a row is its maximum.
        largest, tokens = torch.max(logits, dim=-1)
        drawn = [row for row, each in enumerate(parameters) if each.temperature > 0]
        plain = [row for row in drawn if not _filtered(parameters[row])]
        filtered = [row for row in drawn if _filtered(parameters[row])]
        for rows in (plain, filtered):
            if rows:
                kinds = [parameters[row] for row in rows]
                noise = self._noise(logits.shape[-1], [ids[row] for row in rows], kinds)
                tokens[rows] = _draw(logits[rows], kinds, noise)
        return tokens.masked_fill_(~torch.isfinite(largest), NO_TOKEN).tolist()

    def forget(self, request_id: str) -> None:
        """Drop the generator of a request that has ended."""
        self._seeded.pop(request_id, None)

    def _noise(
        self, width: int, ids: list[str], parameters: list[SamplingParameters]
    ) -> torch.Tensor:
        """Return exponential noise [R, width]: argmax(p / noise) is a draw from p."""
        noise = torch.empty(len(ids), width, device=self._device)
        unseeded = [row for row, each in enumerate(parameters) if each.seed is None]
        if unseeded:
            shared = torch.empty(len(unseeded), width, device=self._device)
            noise[unseeded] = shared.exponential_(generator=self._shared)
        for row, (request, each) in enumerate(zip(ids, parameters, strict=True)):
            if each.seed is not None:
                generator = self._seeded.get(request)
                if generator is None:
                    generator = torch.Generator(self._device).manual_seed(each.seed)
                    self._seeded[request] = generator
                noise[row].exponential_(generator=generator)
        # A zero would make its token certain.
        return noise.clamp_min_(torch.finfo(torch.float32).tiny)


def _filtered(parameters: SamplingParameters) -> bool:
    return parameters.top_k > 0 or parameters.top_p < 1


def _draw(
    logits: torch.Tensor, parameters: list[SamplingParameters], noise: torch.Tensor
) -> torch.Tensor:
    device, vocab = logits.device, logits.shape[-1]
    temperature = torch.tensor([each.temperature for each in parameters], device=device)
    # A tiny temperature neither becomes zero nor overflows: the largest logit is shifted to 0.
    temperature.clamp_min_(torch.finfo(torch.float32).tiny)
    shifted = (logits - logits.amax(-1, keepdim=True)) / temperature.unsqueeze(-1)
    probabilities = torch.softmax(shifted, dim=-1)
    if not _filtered(parameters[0]):
        return (probabilities / noise).argmax(-1)
    ordered, ids = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    top_k = torch.tensor([each.top_k or vocab for each in parameters], device=device)
    top_p = torch.tensor([each.top_p for each in parameters], device=device)
    before = ordered.cumsum(-1) - ordered
    rank = torch.arange(vocab, device=device)
    # The most likely token has nothing before it, so it is always kept.
    keep = (rank < top_k.unsqueeze(-1)) & (before < top_p.unsqueeze(-1))
    choice = (ordered / noise).masked_fill(~keep, -1.0).argmax(-1, keepdim=True)
    return ids.gather(-1, choice).squeeze(-1)


def token_logprobs(
    logits: torch.Tensor, tokens: Sequence[int], parameters: Sequence[SamplingParameters]
) -> list[TokenLogprobs | None]:
    """Return the log probabilities that each row asked for, from the softmax of the raw logits.

    Args:
        logits: float32 [R, vocab].
        tokens: the chosen token of each row.
        parameters: of each row; rows without `logprobs` give None.
    """
    found: list[TokenLogprobs | None] = [None] * len(tokens)
    rows = [row for row, each in enumerate(parameters) if each.logprobs is not None]
    if not rows:
        return found
    logs = torch.log_softmax(logits[rows], dim=-1)
    widest = max(parameters[row].logprobs or 0 for row in rows)
    best, ids = torch.topk(logs, min(widest, logs.shape[-1]), dim=-1)
    for index, row in enumerate(rows):
        count = parameters[row].logprobs or 0
        found[row] = TokenLogprobs(
            chosen=float(logs[index, tokens[row]]),
            top=tuple(zip(ids[index, :count].tolist(), best[index, :count].tolist(), strict=True)),
        )
    return found
