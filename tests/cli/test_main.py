import subprocess
import sys

import pytest

from upcurve import __version__
from upcurve.cli import COMMANDS, main


def upcurve(*words):
    return subprocess.run(
        [sys.executable, "-m", "upcurve", *words], capture_output=True, text=True, check=False
    )


def test_help_lists_every_command_and_shows_an_example():
    done = upcurve("--help")
    assert done.returncode == 0
    words = " ".join(done.stdout.split())  # long lines are wrapped
    for name, text in COMMANDS.items():
        assert f"{name} {text}" in words
    assert "\n    upcurve compare feb apr may" in done.stdout


def test_help_imports_no_command():
    code = (
        "import sys; from upcurve.cli import run\n"
        "try:\n    run(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(m for m in sys.modules if m in ('torch', 'numpy', 'sqlalchemy', 'aiohttp')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name):
    command = main.get_command(None, name)
    with command.make_context(f"upcurve {name}", [], resilient_parsing=True) as context:
        text = command.get_help(context)
    assert f"\n    upcurve {name}" in text
    assert "\\b" not in text


def test_version():
    assert __version__ in upcurve("--version").stdout


@pytest.mark.parametrize(
    "words",
    [("frobnicate",), ("compare", "--nonsense"), ("serve",), ("sweep",), ("bench", "--isl", "x")],
)
def test_bad_usage_is_one_line_and_exit_2(words):
    done = upcurve(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("upcurve: error: ")
    assert done.stderr.count("\n") == 1
