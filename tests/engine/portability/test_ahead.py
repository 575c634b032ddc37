"""What is compiled before the first request is all that any step launches."""

import os
import subprocess
import sys

import pytest

from upcurve.engine.execute.warm_up import warm_up_steps

pytest.importorskip("triton")


@pytest.mark.timeout(200)
def test_no_step_launches_what_was_not_compiled_ahead():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    said = subprocess.run(
        [sys.executable, "-m", "tests.engine.portability.served"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    first, second = said.stdout.splitlines()
    for line, architecture in ((first, "sm_90"), (second, "gfx950")):
        name, ahead, launched = line.split()
        assert name == architecture
        assert int(ahead) >= int(launched) > 50


def test_warm_up_steps_keep_within_the_limits_of_a_step():
    steps = warm_up_steps(max_batch_tokens=300, max_running_requests=20)
    assert max(step.tokens for step in steps) == 256
    assert max(step.singles for step in steps) == 16
    assert max(len(step.prompts) for step in steps) == 16
    assert min(step.tokens for step in steps) == 1
