"""Drawing the next tokens from logits, without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from upcurve.engine.execute.device import NO_TOKEN
from upcurve.engine.execute.event import TokenLogprobs
from upcurve.engine.schedule.request import SamplingParameters


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
    ) -> torch.Tensor:
        """Draw one token for each row: int64 [R], NO_TOKEN where the largest logit is not finite.

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
                where = to_device(rows, torch.int64, self._device)
                noise = self._noise(logits.shape[-1], [ids[row] for row in rows], kinds)
                tokens.index_copy_(0, where, _draw(logits[where], kinds, noise))
        return tokens.masked_fill_(~torch.isfinite(largest), NO_TOKEN)

    def forget(self, request_id: str) -> None:
        """Drop the generator of a request that has ended."""
        self._seeded.pop(request_id, None)

    def _noise(
        self, width: int, ids: list[str], parameters: list[SamplingParameters]
    ) -> torch.Tensor:
        """Return exponential noise [R, width]: argmax(p / noise) is a draw from p."""
        noise = torch.empty(len(ids), width, device=self._device)
        # All rows take part in the shared draw: how many have a seed changes nothing for the rest.
        noise.exponential_(generator=self._shared)
        for row, (request, each) in enumerate(zip(ids, parameters, strict=True)):
            if each.seed is not None:
                generator = self._seeded.get(request)
                if generator is None:
                    generator = torch.Generator(self._device).manual_seed(each.seed)
                    self._seeded[request] = generator
                noise[row].exponential_(generator=generator)
        # A zero would make its token certain.
        return noise.clamp_min_(torch.finfo(torch.float32).tiny)


def to_device(
    values: Sequence[int] | Sequence[float], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Copy numbers to a device without waiting for it."""
    tensor = torch.tensor(values, dtype=dtype)
    # Only a copy from pinned memory does not wait.
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _filtered(parameters: SamplingParameters) -> bool:
    return parameters.top_k > 0 or parameters.top_p < 1


def _draw(
    logits: torch.Tensor, parameters: list[SamplingParameters], noise: torch.Tensor
) -> torch.Tensor:
    device, vocab = logits.device, logits.shape[-1]
    temperature = to_device([each.temperature for each in parameters], torch.float32, device)
    # A tiny temperature neither becomes zero nor overflows: the largest logit is shifted to 0.
    temperature.clamp_min_(torch.finfo(torch.float32).tiny)
    shifted = (logits - logits.amax(-1, keepdim=True)) / temperature.unsqueeze(-1)
    probabilities = torch.softmax(shifted, dim=-1)
    if not _filtered(parameters[0]):
        return (probabilities / noise).argmax(-1)
    ordered, ids = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    top_k = to_device([each.top_k or vocab for each in parameters], torch.int64, device)
    top_p = to_device([each.top_p for each in parameters], torch.float32, device)
    before = ordered.cumsum(-1) - ordered
    rank = torch.arange(vocab, device=device)
    # The most likely token has nothing before it, so it is always kept.
    keep = (rank < top_k.unsqueeze(-1)) & (before < top_p.unsqueeze(-1))
    choice = (ordered / noise).masked_fill(~keep, -1.0).argmax(-1, keepdim=True)
    return ids.gather(-1, choice).squeeze(-1)


@dataclass(frozen=True, slots=True)
class DeviceLogprobs:
    """Log probabilities of some rows, still on the device or on their way."""

    rows: list[int]
    counts: list[int]
    """How many of the most likely tokens each row asked for."""
    chosen: torch.Tensor
    """float32 [rows]."""
    best: torch.Tensor
    """float32 [rows, widest]."""
    ids: torch.Tensor
    """int64 [rows, widest]."""

    def copied(self) -> DeviceLogprobs:
        """Return a copy on the host, which arrives with the work that is queued now."""
        chosen, best, ids = (to_host(each) for each in (self.chosen, self.best, self.ids))
        return DeviceLogprobs(self.rows, self.counts, chosen, best, ids)

    def by_row(self, rows: int) -> list[TokenLogprobs | None]:
        """Return them for `rows` rows; None where a row asked for none."""
        found: list[TokenLogprobs | None] = [None] * rows
        chosen, best, ids = self.chosen.tolist(), self.best.tolist(), self.ids.tolist()
        for index, (row, count) in enumerate(zip(self.rows, self.counts, strict=True)):
            top = tuple(zip(ids[index][:count], best[index][:count], strict=True))
            found[row] = TokenLogprobs(chosen[index], top)
        return found


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Begin to copy a tensor to the host; it is there once the stream has got so far."""
    if tensor.device.type == "cpu":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def token_logprobs(
    logits: torch.Tensor, tokens: torch.Tensor, parameters: Sequence[SamplingParameters]
) -> DeviceLogprobs | None:
    """Return the log probabilities that rows asked for, from the softmax of the raw logits.

    Args:
        logits: float32 [R, vocab].
        tokens: int64 [R], the chosen token of each row.
        parameters: of each row; None is returned where no row wants any.
    """
    rows = [row for row, each in enumerate(parameters) if each.logprobs is not None]
    if not rows:
        return None
    where = to_device(rows, torch.int64, logits.device)
    logs = torch.log_softmax(logits[where], dim=-1)
    counts = [parameters[row].logprobs or 0 for row in rows]
    best, ids = torch.topk(logs, min(max(counts), logs.shape[-1]), dim=-1)
    # A row without a token has no probability either; its request fails.
    chosen = logs.gather(1, tokens[where].clamp_min(0).unsqueeze(1)).squeeze(1)
    return DeviceLogprobs(rows, counts, chosen, best, ids)
