from __future__ import annotations

import subprocess
import sys

from upcurve.records.process import is_dead, this_process

MARK_OF_A_CHILD = "from upcurve.records.process import this_process; print(this_process())"


def with_part(index: int, value: str) -> str:
    parts = this_process().split(" ")
    parts[index] = value
    return " ".join(parts)


def test_this_process_lives() -> None:
    assert not is_dead(this_process())


def test_a_process_that_ended_is_dead() -> None:
    child = subprocess.run(
        [sys.executable, "-c", MARK_OF_A_CHILD], capture_output=True, text=True, check=True
    )
    assert is_dead(child.stdout.strip())


def test_a_process_of_an_earlier_boot_is_dead() -> None:
    assert is_dead(with_part(1, "another-boot"))


def test_a_reused_process_id_is_another_process() -> None:
    assert is_dead(with_part(4, "1.00"))


def test_processes_out_of_sight_count_as_alive() -> None:
    assert not is_dead(with_part(0, "another-machine").replace("another-boot", "x"))
    assert not is_dead(with_part(2, "pid:[1]"))
