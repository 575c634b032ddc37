"""Boxes: memory of every rank of a group that all the others write into."""

from __future__ import annotations

import logging

import torch

from upcurve.engine.kernels.peers import Peers, box
from upcurve.engine.parallel.group import Group
from upcurve.engine.parallel.mapping import Export, export, host_identity, open_export
from upcurve.engine.platform import multiprocessors

logger = logging.getLogger(__name__)

ROWS = 512
"""The most that a sum through boxes may have: of [512, 2048] it takes two ranks half as long as
NCCL, of twice as many rows three quarters (docs/measured.md)."""
TOGETHER = 4
"""Rows of up to 2,048 bf16 of two ranks that a multiprocessor sums at once, by the registers that
sm_90 takes for each; longer ones, or of more ranks, take up to all of them."""


def most_rows(ranks: int, width: int, dtype: torch.dtype, device: torch.device) -> int:
    """Return how many rows a box has: no more than a GPU sums at once.

    Programs that wait for other ranks could otherwise keep those out that these wait for.
    """
    small = ranks == 2 and width <= 2048 and dtype == torch.bfloat16
    return min(ROWS, multiprocessors(device) * (TOGETHER if small else 1))


def open_boxes(
    group: Group, width: int, dtype: torch.dtype, device: torch.device, rows: int | None = None
) -> Peers | None:
    """Give every rank of a group a box, and map them all; all ranks have to call.

    Args:
        group: whose ranks have GPUs of their own.
        width: of the rows to sum.
        dtype: of their elements: bf16 or float32.
        device: of this rank.
        rows: the most that a sum may have; the least of what `most_rows` gives the ranks if None.

    Returns:
        None on all ranks where one of them cannot, which the first one's log says.
    """
    rows = group.least(rows or most_rows(group.size, width, dtype, device), device)
    own, exported, problem = _offered(group.size, rows, width, dtype, device)
    offers = group.objects((host_identity(), exported, problem))
    boxes, problem = _opened(offers, own, group.index)
    if _failed(group, problem):
        return None
    # Nothing but a word that comes proves that one's box is where the others write.
    for each in boxes:
        each[0, group.index, 0, 0] = group.index + 1
    group.least(0, device)
    if own[0, :, 0, 0].tolist() != list(range(1, group.size + 1)):
        problem = "what one rank writes another does not find"
    own.zero_()
    if _failed(group, problem):
        return None
    return Peers.of(group.index, tuple(boxes))


def _failed(group: Group, problem: str) -> bool:
    """Whether some rank has a problem, which the first one says; waits for them all."""
    problems = [each for each in group.objects(problem) if each]
    if problems and group.index == 0:
        logger.warning("peer_memory is off: %s", problems[0])
    return bool(problems)


def _offered(
    ranks: int, rows: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, Export | None, str]:
    """Return one's box and how others find it; or why they do not, an error on this rank alone."""
    try:
        own = box(ranks, rows, width, dtype, device)
        return own, export(own), ""
    except (RuntimeError, OSError) as error:
        return torch.empty(0), None, f"memory cannot be shared: {_line(error)}"


def _opened(
    offers: list[tuple[str, Export | None, str]], own: torch.Tensor, index: int
) -> tuple[list[torch.Tensor], str]:
    """Map the boxes that are offered; or return none, and why."""
    problem = next((problem for _, _, problem in offers if problem), "")
    hosts = {host for host, _, _ in offers}
    if problem or len(hosts) > 1 or "" in hosts:
        return [], problem or "the ranks are on several hosts"
    try:
        return [
            own if rank == index else open_export(exported)
            for rank, (_, exported, _) in enumerate(offers)
            if exported is not None
        ], ""
    except (RuntimeError, OSError) as error:
        return [], f"another rank's memory cannot be mapped: {_line(error)}"


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
