"""What a checkpoint is known by."""

from __future__ import annotations

import torch

from upcurve.engine.model.identity import fingerprint


def test_a_fingerprint_is_of_the_bytes_in_their_order() -> None:
    one, two = torch.arange(6, dtype=torch.bfloat16).view(2, 3), torch.ones(2)
    assert fingerprint([one, two]) == fingerprint([one.clone(), two])
    assert fingerprint([one, two]) == fingerprint([one.T.contiguous().T, two])
    changed = one.clone()
    changed[1, 2] = 7
    assert len({fingerprint(x) for x in ([one, two], [two, one], [changed, two], [one])}) == 4
