from __future__ import annotations

from pathlib import Path

import pytest

from upcurve.files import write_whole


def test_a_write_that_breaks_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half(file) -> None:
        file.write(b"ne")
        file.flush()
        assert path.read_bytes() == b"old"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_whole(path, half)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"old")]
    write_whole(path, lambda file: file.write(b"new"))
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"new")]
