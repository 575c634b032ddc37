"""Git repositories that several tests make."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_IDENTITY = {
    **{f"GIT_{role}_NAME": "Test" for role in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{role}_EMAIL": "test@example.org" for role in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


def git(folder: Path, *words: str) -> str:
    """Run git in a folder and return what it prints."""
    inherited = {key: each for key, each in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        env=inherited | _IDENTITY,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def new_repository(folder: Path, commits: Sequence[Mapping[str, str]]) -> Path:
    """Make a repository whose n-th commit, `commit n` on main, writes these files."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for number, files in enumerate(commits):
        for name, text in files.items():
            (folder / name).write_text(text)
        git(folder, "add", "--all")
        git(folder, "commit", "-q", "--allow-empty", "-m", f"commit {number}")
    return folder
