"""Drawing the next tokens from logits, without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from upcurve.engine.execute.device import NO_TOKEN
from upcurve.engine.execute.event import TokenLogprobs
from upcurve.engine.kernels.sampling import Draw, draw, packed
from upcurve.engine.schedule.request import SamplingParameters
from upcurve.engine.schedule.scheduler import Scheduled


class Sampler:
    """Draws tokens: all of a step in two launches, or three.

    The noise of a seeded row is that of its seed and of the place of its token in the output, so
    that it depends neither on the rows beside it nor on steps that are computed anew.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device = device
        # Any whole number, as int64.
        self._seed = (seed + 2**63) % 2**64 - 2**63
        self._unseeded = 0

    def sample(self, logits: torch.Tensor, drawing: Sequence[Scheduled]) -> torch.Tensor:
        """Draw one token for each row: int64 [R], NO_TOKEN where the largest logit is not finite.

        Args:
            logits: bfloat16 or float32 [R, vocab].
            drawing: the entry of the step that each row ends.
        """
        draws = [self._draw(each) for each in drawing]
        numbers = None
        if any(each.temperature > 0 for each in draws):
            numbers = to_device(packed(draws), torch.int64, self._device).view(5, len(draws))
        few, wide = any(each.few for each in draws), any(each.wide for each in draws)
        return draw(logits, numbers, few=few, wide=wide, no_token=NO_TOKEN)

    def _draw(self, each: Scheduled) -> Draw:
        sampling = each.request.sampling
        seed, number = sampling.seed, each.begin + each.count - len(each.request.prompt)
        if seed is None:
            # Below zero: no seeded row has these numbers, should its seed be the same.
            self._unseeded -= 1
            seed, number = self._seed, self._unseeded
        return Draw(sampling.temperature, sampling.top_k, sampling.top_p, seed, number)


def to_device(
    values: Sequence[int] | Sequence[float], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Copy numbers to a device without waiting for it."""
    tensor = torch.tensor(values, dtype=dtype)
    # Only a copy from pinned memory does not wait.
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


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
        logits: bfloat16 or float32 [R, vocab].
        tokens: int64 [R], the chosen token of each row.
        parameters: of each row; None is returned where no row wants any.
    """
    rows = [row for row, each in enumerate(parameters) if each.logprobs is not None]
    if not rows:
        return None
    where = to_device(rows, torch.int64, logits.device)
    logs = torch.log_softmax(logits[where], dim=-1, dtype=torch.float32)
    counts = [parameters[row].logprobs or 0 for row in rows]
    best, ids = torch.topk(logs, min(max(counts), logs.shape[-1]), dim=-1)
    # A row without a token has no probability either; its request fails.
    chosen = logs.gather(1, tokens[where].clamp_min(0).unsqueeze(1)).squeeze(1)
    return DeviceLogprobs(rows, counts, chosen, best, ids)
