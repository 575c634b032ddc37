import subprocess
import sys

import pytest

BLOCKED = """
import sys
for name in {modules!r}:
    sys.modules[name] = None
from upcurve.cli import run
run({words!r})
"""


@pytest.mark.parametrize(
    ("words", "modules", "extra"),
    [
        (["serve", "somewhere"], ["torch"], "engine"),
        (["serve", "somewhere"], ["fastapi"], "engine"),
        (["dashboard"], ["uvicorn"], "dashboard"),
        (["export", "--site", "public"], ["fastapi"], "dashboard"),
        (["demo"], ["vl_convert"], "report"),
        (["demo"], ["plotext"], "report"),
    ],
)
def test_a_missing_extra_is_one_line_that_says_how_to_install_it(words, modules, extra, tmp_path):
    code = BLOCKED.format(modules=modules, words=words)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert f"pip install 'upcurve[{extra}]'" in done.stderr


def test_a_missing_module_of_our_own_stays_a_traceback(tmp_path):
    code = BLOCKED.format(modules=["upcurve.records.store"], words=["compare"])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
