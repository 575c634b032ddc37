"""Revisions and worktrees of real git repositories."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweep.repositories import git, new_repository
from upcurve.errors import InputError
from upcurve.sweep.revision import GitError, Repository, Worktrees


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "clone", [{"speed": str(n)} for n in range(4)])


def test_the_path_follows_first_parents(clone: Path) -> None:
    git(clone, "switch", "-q", "-c", "side", "HEAD~1")
    (clone / "other").write_text("x")
    git(clone, "add", "other")
    git(clone, "commit", "-q", "-m", "on the side")
    git(clone, "switch", "-q", "main")
    git(clone, "merge", "-q", "--no-ff", "-m", "merge the side", "side")
    repository = Repository(clone)
    good, bad = repository.revision("main~3", "--good"), repository.revision("main", "--bad")
    subjects = [each.subject for each in repository.path_between(good, bad)]
    assert subjects == ["commit 1", "commit 2", "commit 3", "merge the side"]


def test_bad_names_are_bad_input(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"--repository: .* is no git repository; name the folder"):
        Repository(tmp_path / "empty")
    with pytest.raises(InputError, match=r"--repository: .* is no git repository"):
        Repository(tmp_path / "missing")
    repository = Repository(clone)
    for name in ("nonsense", "--all", ""):
        with pytest.raises(InputError, match=r"--good: there is no commit"):
            repository.revision(name, "--good")
    old, new = repository.revision("main~2", "--bad"), repository.revision("main", "--good")
    with pytest.raises(InputError, match=r"is no ancestor of --bad .*; give their merge base"):
        repository.path_between(new, old)
    with pytest.raises(InputError, match=r"it is the same commit"):
        repository.path_between(new, new)


def test_worktrees_leave_the_clone_as_it_is(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clone / "speed").write_text("changed by the user")
    hook = clone / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/hooked'\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_DIR", str(tmp_path))  # as it is within a hook
    repository = Repository(clone)
    old = repository.revision("main~2", "--good")
    with Worktrees(repository, tmp_path / "trees") as worktrees:
        path = worktrees.add(old)
        assert path == worktrees.path(old)
        assert (path / "speed").read_text() == "1"
        (path / "built").write_text("by the setup")
        with pytest.raises(GitError):
            worktrees.add(old)
        worktrees.remove(old)
        assert not path.exists()
        worktrees.add(old)
    assert list((tmp_path / "trees").iterdir()) == []
    monkeypatch.delenv("GIT_DIR")
    assert git(clone, "worktree", "list").count("\n") == 1
    assert git(clone, "branch", "--show-current") == "main\n"
    assert (clone / "speed").read_text() == "changed by the user"
    assert not (tmp_path / "hooked").exists()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_stays(
    clone: Path, tmp_path: Path
) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from upcurve.sweep.revision import Repository, Worktrees\n"
        "repository = Repository(Path(sys.argv[1]))\n"
        "worktrees = Worktrees(repository, Path(sys.argv[2]))\n"
        "worktrees.add(repository.revision('main~1', '--good'))\n"
        "os._exit(9)"
    )
    trees = tmp_path / "trees"
    died = subprocess.run([sys.executable, "-c", code, clone, trees], check=False)
    assert died.returncode == 9
    assert len(list(trees.glob("*/*/speed"))) == 1
    repository = Repository(clone)
    with Worktrees(repository, trees) as first:
        assert list(trees.glob("*/*/speed")) == []
        used = first.add(repository.revision("main", "--bad"))
        with Worktrees(repository, trees):
            assert (used / "speed").is_file()
        assert (used / "speed").is_file()
    assert git(clone, "worktree", "list").count("\n") == 1
