from __future__ import annotations

import numpy as np
import pytest

from upcurve.frontier.request_noise import request_noise


def test_it_is_how_the_figures_of_many_samples_vary():
    chance = np.random.default_rng(1)
    tpot = 20 * np.exp(chance.normal(0, 0.2, (3000, 81)))
    total = 900 * np.exp(chance.normal(0, 0.1, (3000, 81)))
    true = np.log(np.median(tpot, axis=1)).var(), np.log(total.mean(axis=1)).var()
    found = np.mean([request_noise(a, b) for a, b in zip(tpot[:150], total[:150], strict=True)], 0)
    # A bootstrapped variance of a median is known to be a little large.
    assert found[0] == pytest.approx(true[0], rel=0.2)
    assert found[1] == pytest.approx(true[1], rel=0.06)


@pytest.mark.parametrize("times", [[], [5.0], [5.0, 0.0]])
def test_too_few_requests_tell_nothing(times):
    assert request_noise(np.array(times), np.array(times)) is None
