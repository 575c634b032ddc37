"""Recipes: what a file says, what is derived, and one clear line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from upcurve.errors import InputError
from upcurve.records.layout import Layout
from upcurve.sweep.recipe import check_said, load_recipe

RECIPE = """
name: small
model: models/small
hardware: CPU
engine:
  name: own
  command: >-
    serve {model} --port {port} --json '{"a": {"b": 1}}' --tp {tp} --ep {ep}
  env: {THREADS: 1, MODE: fast}
workload: {isl: 64, osl: 32}
concurrency: [1, 2]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE)
    return file


def test_what_is_not_said_is_derived(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.series == "small"
    assert recipe.served_model_name == "models/small"
    assert (recipe.tp, recipe.gpus) == (1, 1)
    assert recipe.engine.env == {"THREADS": "1", "MODE": "fast"}
    assert recipe.engine.health.path == "/health"
    assert recipe.change is None
    assert load_recipe(path, ["tp=4"]).gpus == 4


def test_what_is_said_counts(path: Path) -> None:
    said = ["series=may", "served_model_name=qwen", "tp=2", "gpus=16", "repeats=5"]
    recipe = load_recipe(path, [*said, "change=https://example.org/pull/1"])
    assert (recipe.series, recipe.served_model_name) == ("may", "qwen")
    assert (recipe.tp, recipe.gpus, recipe.repeats) == (2, 16, 5)
    assert recipe.change == "https://example.org/pull/1"


def test_placeholders_are_filled_and_other_braces_stay(path: Path) -> None:
    assert load_recipe(path, ["tp=8", "ep=2"]).command(host="127.0.0.1", port=4242) == [
        *["serve", "models/small", "--port", "4242"],
        *["--json", '{"a": {"b": 1}}', "--tp", "8", "--ep", "2"],
    ]


def test_a_command_may_be_a_list_with_numbers(path: Path) -> None:
    recipe = load_recipe(path, ["engine.command=[serve, --pages, 16, --at, '{host}:{port}']"])
    assert recipe.command(host="h", port=1) == ["serve", "--pages", "16", "--at", "h:1"]


def test_overrides_are_typed_as_yaml_and_the_last_one_counts(path: Path) -> None:
    recipe = load_recipe(
        path,
        [
            "concurrency=[4, 8]",
            "workload.isl=1",
            "workload.isl=1024",
            "engine.env.NEW=a=b",
            "engine.health.timeout_s=2.5",
        ],
    )
    assert recipe.concurrency == [4, 8]
    assert recipe.workload.isl == 1024
    assert recipe.engine.env == {"THREADS": "1", "MODE": "fast", "NEW": "a=b"}
    assert recipe.engine.health.timeout_s == 2.5


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("concurrency=[1, 1]", "concurrency: a value stands there twice"),
        ("engine.command=serve", "engine.command: it does not say {port}; add e.g. --port"),
        ("engine.command='a {prot}'", "engine.command: {prot} is no placeholder; did you mean 'p"),
        ("engine.command=a 'b", "engine.command: cannot be split into words (No closing"),
        (
            "workload.vocabulary=[5, 6]",
            "workload.vocabulary: [5, 6] is no range of token ids; give",
        ),
        (r'series="a\nb"', r"series: 'a\nb' is more than a line of text; write a plain name"),
    ],
)
def test_what_a_recipe_may_not_say_is_one_line_with_key_problem_and_mend(
    path: Path, override: str, line: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(path, [override])
    message = str(caught.value)
    assert message.startswith(f"recipe {path}: {line}")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("tp", "--set: 'tp' sets nothing; write key=value"),
        ("=4", "--set: '=4' sets nothing; write key=value"),
        ("a..b=4", "--set: 'a..b=4' sets nothing; write key=value"),
        ("name.x=1", "--set name.x: 'name' has no keys; set name itself"),
        ("tp=[", "--set tp: '[' is no YAML; put the value in quotes"),
    ],
)
def test_an_override_that_is_none(path: Path, override: str, line: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(path, [override])
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (RECIPE.replace("hardware: CPU", ""), ": hardware: it is missing; add it"),
        (RECIPE + "name: twice\n", ": it is no YAML (the key 'name' stands there twice, line 12)"),
        (RECIPE + "  - [\n", ": it is no YAML ("),
        ("name: \x00", ": it is no YAML (unacceptable character"),
        ("", ": it holds no keys; write e.g. 'name: ...'"),
        ("- a\n- b\n", ": it holds no keys; write e.g. 'name: ...'"),
    ],
)
def test_a_file_that_is_no_recipe(path: Path, text: str, line: str) -> None:
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"recipe {path}{line}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.yaml: there is no such file; name a YAML file"):
        load_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(InputError, match="it is a folder; name a YAML file in it"):
        load_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(InputError, match="it is no UTF-8 text"):
        load_recipe(tmp_path / "latin.yaml")


def test_merge_keys_of_yaml_may_repeat(path: Path) -> None:
    path.write_text(RECIPE.replace("{THREADS: 1, MODE: fast}", "{<<: {A: x}, <<: {B: y}}"))
    assert load_recipe(path).engine.env == {"A": "x", "B": "y"}


def test_gpus_follow_from_the_layout(path: Path) -> None:
    assert load_recipe(path, ["tp=2", "dp=4"]).layout == Layout(2, 1, 4, 8)
    apart = load_recipe(path, ["tp=2", "prefill_gpus=4", "decode_gpus=2"])
    assert (apart.gpus, apart.prefill_gpus, apart.decode_gpus) == (6, 4, 2)
    assert load_recipe(path, ["dp=2", "gpus=3"]).gpus == 3
    with pytest.raises(InputError, match=r"yaml: gpus: those of prefill .* without the other"):
        load_recipe(path, ["prefill_gpus=4"])
    with pytest.raises(InputError, match=r"yaml: gpus: tp 4, ep 1, dp 2 does not fit on 4"):
        load_recipe(path, ["tp=4", "dp=2", "gpus=4"])
    for wrong in ("tp=four", "dp=null", "prefill_gpus=1.5"):
        with pytest.raises(InputError, match=f"yaml: {wrong.partition('=')[0]}: "):
            load_recipe(path, [wrong])


def test_a_command_may_say_the_layout(path: Path) -> None:
    command = "engine.command=serve --tp {tp} --ep {ep} --dp {dp} --port {port}"
    recipe = load_recipe(path, [command, "dp=2", "ep=2"])
    assert recipe.command(host="h", port=1) == [
        "serve",
        "--tp",
        "1",
        "--ep",
        "2",
        "--dp",
        "2",
        "--port",
        "1",
    ]


def test_a_command_may_say_how_gpus_are_parted(path: Path) -> None:
    command = "engine.command=serve {port} --prefill-workers {prefill_gpus} -d {decode_gpus}"
    recipe = load_recipe(path, [command, "prefill_gpus=1", "decode_gpus=3"])
    assert recipe.command(host="h", port=1)[2:] == ["--prefill-workers", "1", "-d", "3"]
    with pytest.raises(InputError, match=r"says {prefill_gpus}, and none is given; add prefill_g"):
        load_recipe(path, [command])
    changes = ["prefill_gpus=1", "decode_gpus=3"]
    mend = r"--set prefill_gpus: the command does not say .* write e.g. --prefill-workers {prefill"
    with pytest.raises(InputError, match=mend):
        check_said(path, changes, load_recipe(path, changes))


def test_a_size_that_the_command_would_not_say_is_refused(path: Path) -> None:
    path.write_text(RECIPE.replace(" --ep {ep}", " --ep 1"))
    line = (
        "--set ep: the command does not say {ep}: the engine would be started as before; "
        "write e.g. --ep {ep} in it"
    )
    changes = ["tp=4", "ep=4"]
    with pytest.raises(InputError) as caught:
        check_said(path, changes, load_recipe(path, changes))
    assert str(caught.value) == line
    # Nothing that it does not say is changed; or the command is.
    command = "engine.command=serve --port {port} --ep 4"
    for each in (["ep=1", "tp=4"], [*changes, command]):
        check_said(path, each, load_recipe(path, each))
