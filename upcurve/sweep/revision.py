"""Revisions of a git repository: names, order, and worktrees that leave the user's tree alone."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from upcurve.closing import Closing
from upcurve.errors import InputError
from upcurve.records import process

_OWNER = "owner.json"


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit."""

    sha: str
    subject: str

    @property
    def short(self) -> str:
        """The first ten digits of its hash."""
        return self.sha[:10]


class GitError(Exception):
    """Git refused; the message is its last line."""


class Repository:
    """A git repository on this machine; nothing here changes its working tree, index or refs."""

    def __init__(self, path: Path) -> None:
        """Find the repository that a folder belongs to.

        Raises:
            InputError: it belongs to none, or there is no git.
        """
        self.path = path.absolute()
        if shutil.which("git") is None:
            raise InputError("--repository", "there is no program 'git'", "install git")
        try:
            self.git("rev-parse", "--git-dir")
        except (GitError, OSError) as error:
            mend = "name the folder of a clone"
            raise InputError("--repository", f"{path} is no git repository", mend) from error

    def git(self, *words: str) -> str:
        """Run git there and return what it prints.

        Raises:
            GitError: its status is not 0.
        """
        # Set where upcurve is called from a hook; they would name another repository.
        environment = {key: each for key, each in os.environ.items() if not key.startswith("GIT_")}
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *words],
            cwd=self.path,
            env=environment | {"LC_ALL": "C"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"git ended with {done.returncode}"]
            raise GitError(lines[-1])
        return done.stdout

    def revision(self, name: str, field: str) -> Revision:
        """Return the commit that a name stands for.

        Raises:
            InputError: there is none; `field` is what it names.
        """
        try:
            sha = self.git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
        except GitError as error:
            problem = f"there is no commit {name!r} in {self.path}"
            raise InputError(field, problem, "give a hash, a tag or a branch") from error
        return self._revisions("--max-count=1", sha.strip())[0]

    def path_between(self, good: Revision, bad: Revision) -> list[Revision]:
        """Return good, then the commits up to bad along first parents, oldest first.

        A merged branch counts as one commit: its merge.

        Raises:
            InputError: the two are one commit, or good is no ancestor of bad.
        """
        if good.sha == bad.sha:
            raise InputError("--bad", f"it is the same commit as --good, {good.short}", "give two")
        try:
            self.git("merge-base", "--is-ancestor", good.sha, bad.sha)
        except GitError as error:
            problem = f"{good.short} is no ancestor of --bad {bad.short}"
            mend = "give their merge base (git merge-base) as --good"
            raise InputError("--good", problem, mend) from error
        return [good, *self._revisions("--first-parent", "--reverse", f"{good.sha}..{bad.sha}")]

    def _revisions(self, *words: str) -> list[Revision]:
        lines = self.git("log", "--no-show-signature", "--format=%H %s", *words, "--").splitlines()
        return [Revision(*line.split(" ", 1)) for line in lines]


class Worktrees(Closing):
    """Checkouts of revisions below a folder of the store, removed when the context is left.

    What a killed process left there is removed first; those of living ones stay.
    """

    def __init__(self, repository: Repository, folder: Path) -> None:
        self._repository = repository
        for left in folder.glob(f"*/{_OWNER}"):
            _remove_orphan(left)
        self._folder = folder.absolute() / secrets.token_hex(4)
        self._folder.mkdir(parents=True)
        owner = {"process": process.this_process(), "repository": str(repository.path)}
        (self._folder / _OWNER).write_text(json.dumps(owner))

    def path(self, revision: Revision) -> Path:
        """Return where a revision is, or will be, checked out."""
        return self._folder / revision.short

    def add(self, revision: Revision) -> Path:
        """Check a revision out and return its folder.

        Raises:
            GitError: git refuses.
        """
        path = self.path(revision)
        self._repository.git("worktree", "add", "--detach", "--force", str(path), revision.sha)
        return path

    def remove(self, revision: Revision) -> None:
        """Remove the checkout of a revision, with all that was built in it."""
        if self.path(revision).exists():
            _remove(self._repository, self.path(revision))

    def close(self) -> None:
        """Remove all of them."""
        if self._folder.exists():
            _remove_all(self._repository, self._folder)


def _remove_orphan(owner: Path) -> None:
    values = json.loads(owner.read_text())
    if not process.is_dead(values["process"]):
        return
    try:
        repository = Repository(Path(values["repository"]))
    except InputError:  # the repository is gone, and with it what it knew of the worktrees
        shutil.rmtree(owner.parent)
    else:
        _remove_all(repository, owner.parent)


def _remove_all(repository: Repository, folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            _remove(repository, path)
    shutil.rmtree(folder)


def _remove(repository: Repository, path: Path) -> None:
    try:
        # Twice: a worktree that a killed `git worktree add` left is locked.
        repository.git("worktree", "remove", "--force", "--force", str(path))
    except GitError:  # half made: git knows nothing of it
        shutil.rmtree(path, ignore_errors=True)
