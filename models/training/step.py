"""One training step: losses, gradients and the update, in a CUDA graph where there is a GPU."""

from __future__ import annotations

import logging
import math
import time

import torch
import torch.nn.functional as F

from models.training.data import AHEAD, Block
from models.training.network import Network
from models.training.optimizer import Optimizer

logger = logging.getLogger(__name__)

AHEAD_WEIGHT = 0.2
"""Of the multi-token-prediction loss."""
BALANCE_WEIGHT = 0.01
"""Of the loss that keeps experts evenly used."""
LOSSES = ("loss", "next_token", "token_after", "balance")


def losses(network: Network, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return total, next-token, token-after-next and balance loss [4].

    Args:
        network: to train.
        tokens: integers [B, S + 2].
        weights: of each token's loss, [B, S + 2].
    """
    tokens, weights = tokens.long(), weights.float()
    length = tokens.shape[1] - AHEAD
    hidden, balance = network.hidden(tokens[:, :length])
    parts = []
    for place, states in enumerate((hidden, network.ahead(hidden, tokens[:, 1 : length + 1])), 1):
        wanted = tokens[:, place : place + length]
        weight = weights[:, place : place + length]
        each = F.cross_entropy(
            network.logits(states).flatten(0, 1), wanted.flatten(), reduction="none"
        )
        parts.append((each * weight.flatten()).sum() / weight.sum())
    total = parts[0] + AHEAD_WEIGHT * parts[1] + BALANCE_WEIGHT * balance
    return torch.stack([total, *parts, balance])


class Step:
    """Runs training steps on blocks.

    Args:
        network, optimizer: what is trained, and how.
        rows, length: of the blocks.
        compiled: whether layers are compiled first.
        graph: whether a CUDA graph holds the whole step.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        *,
        rows: int,
        length: int,
        compiled: bool,
        graph: bool,
    ) -> None:
        self._network, self._optimizer = network, optimizer
        device = network.lm_head.weight.device
        size = (rows, length + AHEAD)
        self._tokens = torch.zeros(size, dtype=torch.int16, device=device)
        self._weights = torch.ones(size, dtype=torch.float16, device=device)
        self._out = torch.zeros(len(LOSSES), device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        if compiled:
            for layer in [*network.model.layers, *network.mtp.layers]:
                layer.compile(dynamic=False)
        if graph:
            self._capture()

    def _capture(self) -> None:
        """Run some steps that change nothing (their rate is 0), then capture one."""
        self._optimizer.schedule.zero_()
        begun = time.monotonic()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        logger.info("first steps took %.1f s", time.monotonic() - begun)
        self._network.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._run()
        self._optimizer.reset()

    def _run(self) -> None:
        self._network.zero_grad(set_to_none=True)
        parts = losses(self._network, self._tokens, self._weights)
        parts[0].backward()
        self._optimizer.step()
        self._out.copy_(parts.detach())

    def __call__(self, block: Block, schedule: float) -> None:
        """Train on a block, with step sizes multiplied by `schedule`."""
        self._tokens.copy_(torch.from_numpy(block[0]))
        self._weights.copy_(torch.from_numpy(block[1]))
        self._optimizer.schedule.fill_(schedule)
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()

    def losses(self) -> dict[str, float]:
        """Return the losses of the last step; waits for the device.

        Raises:
            FloatingPointError: one is not finite.
        """
        values = dict(zip(LOSSES, self._out.tolist(), strict=True))
        if not all(map(math.isfinite, values.values())):
            raise FloatingPointError(f"training diverged: {values}")
        return values
