"""What is known of processes that serve."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from tests.processes import until
from upcurve.engine.serve.router.replica_process import _exists


def test_who_has_ended_and_is_nobodys_is_gone() -> None:
    # As one that a container's first process inherits: nobody else waits for it.
    pid = os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", ""], os.environ)
    assert until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert not _exists(pid)
    assert not psutil.pid_exists(pid)


def test_who_runs_exists_and_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert _exists(child.pid)
        assert child.poll() is None
        child.communicate(b"\n")
        assert child.returncode == 0
    assert _exists(os.getpid())
