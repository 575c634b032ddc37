"""The workload of a bench: options -> prompts that are drawn, made of text or read from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from upcurve.errors import InputError
from upcurve.load.workload import (
    DatasetWorkload,
    SharedPrefix,
    SyntheticWorkload,
    TextWorkload,
    Workload,
    parse_lengths,
)


def workload_of(given: dict[str, Any], seed: int) -> Workload:
    """Return the workload that the options of `bench` describe.

    Args:
        given: options by name.
        seed: of its prompts and lengths.

    Raises:
        click.UsageError: options exclude each other, or one is missing.
        InputError: a length is none, or a file is no dataset or tokenizer, or one that cannot be
            used as it is asked for.
    """
    osl = None if given["osl"] is None else parse_lengths(given["osl"], "osl")
    if given["dataset"]:
        for name in ("isl", "shared_prefix"):
            if given[name] is not None:
                option = name.replace("_", "-")
                raise click.UsageError(f"--{option} and --dataset exclude each other")
        dataset = DatasetWorkload.load(
            Path(given["dataset"]),
            format=given["dataset_format"],
            tokenizer=None if given["tokenizer"] is None else Path(given["tokenizer"]),
            osl=osl,
            seed=seed,
            repeat=given["dataset_repeat"],
        )
        _check_dataset(dataset, given)
        return dataset
    if given["dataset_repeat"] or given["dataset_format"] != "auto":
        raise click.UsageError("--dataset-format and --dataset-repeat belong to --dataset")
    if given["isl"] is None or osl is None:
        raise click.UsageError("Missing option '--isl' or '--osl' (or '--dataset')")
    isl = parse_lengths(given["isl"], "isl")
    prefix = _prefix(given["shared_prefix"])
    if given["tokenizer"] is not None:
        return TextWorkload.load(Path(given["tokenizer"]), isl, osl, seed=seed, prefix=prefix)
    return SyntheticWorkload(isl, osl, seed=seed, vocabulary=given["vocabulary"], prefix=prefix)


def _check_dataset(dataset: DatasetWorkload, given: dict[str, Any]) -> None:
    """Refuse what a file's prompts cannot be used for."""
    wrong = {"chat": "token ids", "completions": "messages"}[given["endpoint"]]
    if wrong in dataset.kinds:
        other = "completions" if given["endpoint"] == "chat" else "chat"
        problem = f"{dataset.name} has prompts of {wrong}, and {given['endpoint']} takes none"
        raise InputError("endpoint", problem, f"give --endpoint {other}")
    if (given["duration"] or given["search"]) and not dataset.repeat:
        problem = f"nobody knows how many of its {len(dataset.entries)} prompts will be sent"
        raise InputError("dataset", problem, "give --requests, or --dataset-repeat")
    if given["series"] is not None and not dataset.counted:
        problem = "a series is kept by its input length, and that is not known"
        raise InputError("tokenizer", problem, "give --tokenizer to count it")


def _prefix(text: str | None) -> SharedPrefix | None:
    if text is None:
        return None
    length, _, count = text.partition(":")
    try:
        return SharedPrefix(int(length), int(count or 1))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("shared-prefix", f"{text!r}", "give LENGTH or LENGTH:COUNT") from None
