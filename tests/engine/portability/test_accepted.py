"""What a kernel may spill is accepted of the forms that were looked at, and of no other."""

from types import SimpleNamespace

import pytest

pytest.importorskip("triton")
from upcurve.engine.portability.chips import CHIPS
from upcurve.engine.portability.compilation import Taken
from upcurve.engine.portability.report import ACCEPTED_SPILLS, _finding


def verdict(target, group, spilled):
    variant = SimpleNamespace(
        kernel="paged_prefill._attend_tile",
        options={"group": group, "num_warps": 8},
        steps=["35B/TP8, bf16 weights: prefill of 8192"],
        grid=(1, 64, 1),
        for_speed=True,
    )
    found = _finding(CHIPS[target], variant, Taken(255, 0, spilled))
    return found.problems, found.accepted


def test_as_much_is_accepted_in_the_forms_that_are_named():
    accepted = next(each for each in ACCEPTED_SPILLS if each.kernel.endswith("_attend_tile"))
    assert verdict("sm_90", 16, accepted.most) == ((), accepted.why)
    assert verdict("sm_90", 16, accepted.most + 1) == (("29 spilled",), None)
    assert verdict("sm_90", 16, 0) == ((), None)


def test_no_other_form_and_no_other_chip_may_spill():
    assert verdict("sm_90", 8, 8) == (("8 spilled",), None)
    assert verdict("gfx950", 16, 8) == (("8 spilled",), None)
