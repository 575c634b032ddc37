"""Decode steps as captured graphs: one launch instead of thousands."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upcurve.engine.execute.inputs import ON_DEVICE, SentInputs, StepInputs
from upcurve.engine.memory.caches import Caches
from upcurve.engine.model.batch import ForwardBatch
from upcurve.engine.model.model import Model

WARM_UPS = 2
"""Eager runs before a capture: compilation and allocation are over by then."""


def buckets(largest: int) -> list[int]:
    """Return the batch sizes to capture: 1, 2, 4, 8, then every 8, 16 from 128 on, to `largest`."""
    sizes = {1, 2, 4, *range(8, min(largest, 128) + 1, 8), *range(128, largest + 1, 16), largest}
    return sorted(size for size in sizes if size <= largest)


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    by_row: torch.Tensor
    """int64 [3, rows]: what the graph reads its tokens, positions and slots from."""
    logits: torch.Tensor
    """float32 [rows, vocab]: where the graph leaves them."""


class DecodeGraphs:
    """A graph for each batch size; a step uses the smallest that it fits, padded.

    `torch.cuda.CUDAGraph` is a HIP graph on AMD. Rows that pad a step belong to a slot of their own
    and to the page of nobody.
    """

    def __init__(
        self, model: Model, caches: Caches, last_tokens: torch.Tensor, largest: int
    ) -> None:
        """Capture; nothing else may run on the device meanwhile.

        Args:
            model: of which the forward pass is captured.
            caches: which it reads and writes.
            last_tokens: int64 [slots], read where a step's token is on the device.
            largest: batch size of the largest graph.
        """
        self._model = model
        self._caches = caches
        self._last_tokens = last_tokens
        self._pool = torch.cuda.graph_pool_handle()
        self._captured: dict[int, _Captured] = {}
        # The largest first: the smaller ones then fit into its memory.
        for rows in reversed(buckets(largest)):
            self._captured[rows] = self._capture(rows)
        self._sizes = sorted(self._captured)

    def fit(self, inputs: StepInputs) -> bool:
        """Pad a step to a captured size, unless there is none for it."""
        least = max(inputs.rows, inputs.gathered_rows)
        if not (inputs.decode_only and inputs.captured) or least > self._sizes[-1]:
            return False
        rows = next(size for size in self._sizes if size >= least)
        inputs.pad(rows, self._caches.padding_slot)
        return True

    def replay(self, sent: SentInputs) -> torch.Tensor:
        """Compute a step that fits; return float32 logits [rows, vocab], valid until the next."""
        captured = self._captured[sent.by_row.shape[1]]
        captured.by_row.copy_(sent.by_row)
        captured.graph.replay()
        return captured.logits

    def _capture(self, rows: int) -> _Captured:
        by_row = torch.zeros(3, rows, dtype=torch.int64, device=self._last_tokens.device)
        by_row[2] = self._caches.padding_slot
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._forward(by_row)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # What other threads do, such as those of NCCL, is no part of it.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = self._forward(by_row)
        return _Captured(graph, by_row, logits)

    def _forward(self, by_row: torch.Tensor) -> torch.Tensor:
        tokens, positions, slots = by_row
        rows = by_row.shape[1]
        batch = ForwardBatch(
            torch.where(tokens == ON_DEVICE, self._last_tokens[slots], tokens),
            positions,
            slots,
            singles=rows,
            # The longest sequence that there can be: a graph does not know the host's numbers.
            longest=self._caches.page_tables.shape[1] * self._caches.page_size,
            chunks=(),
            logit_rows=None,
            gathered_rows=rows,
        )
        return self._model.forward(batch, self._caches)
