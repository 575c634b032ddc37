"""Drawing tokens from logits without a sort of the vocabulary and without a tensor of noise.

A token is drawn by the Gumbel-max trick: the largest of `logit / temperature + noise` is a draw
from the softmax, of all tokens as of any set that is kept of them. The noise of a token is a hash
of the row's seed, of the number of the draw and of the token's id, so that it does not depend on
the rows beside it, on the batch or on the device.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from upcurve.engine.kernels.sampling_kernels import draw_kernels
from upcurve.engine.kernels.sampling_tile import LANES, PIECES, ROUNDS
from upcurve.engine.platform import runs_kernels

WORD = 0xFFFFFFFF
MOST = 2**30
"""No vocabulary has more tokens."""
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Draw:
    """How the token of one row is drawn."""

    temperature: float
    """0 is greedy: the most likely token, the lowest id of equal ones."""
    top_k: int
    """Keep the first k tokens, the most likely first, of equal ones the lowest id; 0 keeps all."""
    top_p: float
    """Keep a token where those before it hold less than this much probability; above 0, 1 is off.
    The first is always kept."""
    seed: int
    """int64."""
    number: int
    """int64, of the draw: with one seed every number has noise of its own."""

    @property
    def few(self) -> bool:
        """Whether top-k is on: what is kept is looked at token by token."""
        return self.temperature > 0 and self.top_k > 0

    @property
    def wide(self) -> bool:
        """Whether top-p alone is on: it may keep most of the vocabulary."""
        return self.temperature > 0 and self.top_k == 0 and self.top_p < 1


def packed(draws: Sequence[Draw]) -> list[int]:
    """Return [5, R] whole numbers, flattened, for `draw`: floating-point ones as their bits."""
    # A tiny temperature does not become zero: it is none only where it is exactly 0.
    temperatures = [each.temperature and max(each.temperature, TINY) for each in draws]
    return [
        *map(_bits, temperatures),
        *(min(each.top_k, MOST) for each in draws),
        *(_bits(max(each.top_p, TINY)) for each in draws),
        *(each.seed for each in draws),
        *(each.number for each in draws),
    ]


def draw(
    logits: torch.Tensor, numbers: torch.Tensor | None, *, few: bool, wide: bool, no_token: int
) -> torch.Tensor:
    """Draw one token for each row, without waiting for the device.

    Args:
        logits: bfloat16 or float32 [R, V], the last dimension contiguous.
        numbers: int64 [5, R], `packed`, on the same device; None where all rows are greedy.
        few: whether any row is.
        wide: whether any row is.
        no_token: returned where a row has a NaN, or its largest logit is not finite.

    Returns:
        int64 [R].
    """
    if runs_kernels(logits.device):
        return draw_kernels(logits, numbers, few=few, wide=wide, no_token=no_token)
    return draw_reference(logits, numbers, no_token=no_token)


def draw_reference(
    logits: torch.Tensor, numbers: torch.Tensor | None, *, no_token: int
) -> torch.Tensor:
    """Compute `draw` in torch; on a GPU it waits for the device."""
    # A NaN anywhere in a row is its maximum; max returns the first of equal ones on the CPU only.
    largest = logits.amax(-1, keepdim=True)
    tokens = (logits == largest).to(torch.uint8).argmax(-1)
    if numbers is not None:
        temperature, top_p = (_floats(numbers[each]) for each in (0, 2))
        for row in temperature.nonzero().flatten().tolist():
            if not math.isfinite(largest[row]):
                continue
            scaled = (logits[row].float() - largest[row].float()) * (1 / temperature[row])
            top_k, seed, number = (numbers[each, row] for each in (1, 3, 4))
            kept = kept_tokens(logits[row], scaled, int(top_k), float(top_p[row]))
            score = scaled + gumbel_noise(seed, number, len(scaled))
            tokens[row] = score.argmax() if kept is None else kept[score[kept].argmax()]
    return tokens.masked_fill_(~torch.isfinite(largest.squeeze(-1)), no_token)


def kept_tokens(
    logits: torch.Tensor, scaled: torch.Tensor, top_k: int, top_p: float
) -> torch.Tensor | None:
    """Return the ids that top-k and top-p keep, as `Draw` defines; None where they keep all.

    Args:
        logits: [V].
        scaled: float32 [V], logits over temperature; the largest is 0.
        top_k: 0 is off.
        top_p: 1 is off.
    """
    vocabulary = len(logits)
    cut = -math.inf
    if 0 < top_k < vocabulary:
        cut = float(scaled.topk(top_k).values[-1])
    if top_p < 1:
        cut = max(cut, lowest_kept(vocabulary, top_p))
    if (not 0 < top_k < vocabulary) and top_p >= 1:
        return None
    # Only what can be kept is sorted, by the logits: probabilities of two may round to one.
    ids = (scaled >= cut).nonzero().flatten()
    ids = ids[logits[ids].sort(descending=True, stable=True).indices]
    keep = torch.ones_like(ids, dtype=torch.bool)
    if top_k:
        keep[top_k:] = False
    if top_p < 1:
        masses = scaled[ids].double().exp()
        keep &= masses.cumsum(0) - masses < top_p * scaled.double().exp().sum()
        keep[0] = True
    return ids[keep]


def lowest_kept(vocabulary: int, top_p: float) -> float:
    """Return a bound for top-p, in logits over temperature below the largest: less is not kept.

    All tokens below ln((1 - p) / V) together hold less than 1 - p of the largest one's probability.
    """
    return 1.01 * math.log(max(1 - top_p, 2.0**-25) / vocabulary) - 0.1


def gumbel_noise(seed: torch.Tensor, number: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Return -ln(-ln(1 - u)), with u uniform in (0, 1), for each token id: float32 [V].

    Args:
        seed: int64 [], the key of Philox.
        number: int64 [], of the draw: half of its counter.
        vocabulary: V.
    """
    lanes = min(LANES, vocabulary)
    tiles = -(-vocabulary // (PIECES * LANES))
    device = seed.device
    starts = torch.arange(tiles, device=device).unsqueeze(-1) * LANES
    counters = starts + torch.arange(lanes, device=device)
    # A tile of ids has its first lanes' worth of the first words, then of the second, and so on.
    bits = torch.stack(philox(counters, number, seed), 1).flatten()[:vocabulary]
    # Small u, which large noise comes from, have the full precision of 32 bits.
    u = ((bits.float() + 0.5) * 2.0**-32).clamp_max_(1 - 2.0**-24)
    exponential = torch.where(u < 2.0**-10, u + 0.5 * u * u, -(1 - u).log())
    return -exponential.log()


def philox(
    counters: torch.Tensor, number: torch.Tensor, seed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the four words of Philox4x32 for each counter, as int64.

    J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); seven rounds are the
    fewest that pass BigCrush (its table 2).

    Args:
        counters: int64 of any shape, below 2**32: the first word.
        number: int64 []: the second and third word.
        seed: int64 []: the key.
    """
    zeros = torch.zeros_like(counters)
    words = (counters, zeros + (number & WORD), zeros + ((number >> 32) & WORD), zeros)
    low, high = seed & WORD, (seed >> 32) & WORD
    for _ in range(ROUNDS):
        first, second = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = (
            ((second >> 32) & WORD) ^ words[1] ^ low,
            second & WORD,
            ((first >> 32) & WORD) ^ words[3] ^ high,
            first & WORD,
        )
        low, high = (low + 0x9E3779B9) & WORD, (high + 0xBB67AE85) & WORD
    return words


def _bits(value: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def _floats(bits: torch.Tensor) -> torch.Tensor:
    return bits.to(torch.int32).view(torch.float32)
