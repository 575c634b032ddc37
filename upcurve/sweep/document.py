"""The YAML text of a recipe: read from a file, changed by `key=value`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from upcurve.errors import InputError


def read(path: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file.

    Raises:
        InputError: the file is missing, unreadable, no YAML, or holds no keys.
    """
    field = f"recipe {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(field, "there is no such file", "name a YAML file") from error
    except IsADirectoryError as error:
        raise InputError(field, "it is a folder", "name a YAML file in it") from error
    except UnicodeDecodeError as error:
        raise InputError(field, "it is no UTF-8 text", "name a YAML file") from error
    except OSError as error:
        raise InputError(field, str(error.strerror), "name a readable YAML file") from error
    try:
        values = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader with one check more
    except yaml.MarkedYAMLError as error:
        raise InputError(field, f"it is no YAML ({_where(error)})", "mend that line") from error
    except (yaml.YAMLError, ValueError) as error:
        problem = f"it is no YAML ({' '.join(str(error).split())})"
        raise InputError(field, problem, "write it as UTF-8 text") from error
    if not isinstance(values, dict):
        raise InputError(field, "it holds no keys", "write e.g. 'name: ...', see recipes/")
    return values


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"{error.problem}{f', line {mark.line + 1}' if mark else ''}"


class _Loader(yaml.SafeLoader):
    """YAML without the silent loss of a key that stands there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands there twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep)


def override(values: dict[str, Any], assignment: str) -> None:
    """Set one key, e.g. `engine.env.OMP_NUM_THREADS=1`; the value is read as YAML.

    Raises:
        InputError: the assignment has no key or no `=`, or goes through a value without keys.
    """
    key, equals, text = assignment.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        mend = "write key=value, e.g. --set workload.isl=1024"
        raise InputError("--set", f"'{assignment}' sets nothing", mend)
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader with one check more
    except yaml.YAMLError as error:
        mend = "put the value in quotes or write e.g. concurrency=[1, 2]"
        raise InputError(f"--set {key}", f"{text!r} is no YAML", mend) from error
    inner: Any = values
    for position, part in enumerate(keys):
        if not isinstance(inner, dict):
            above = ".".join(keys[:position])
            raise InputError(f"--set {key}", f"'{above}' has no keys", f"set {above} itself")
        if position == len(keys) - 1:
            inner[part] = value
        elif inner.get(part) is None:
            inner[part] = {}
        inner = inner[part]
