"""`upcurve serve` as a process: start, signals, and every way not to start."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

import upcurve.cli
from tests.processes import descendants
from upcurve.cli.serve import command
from upcurve.engine.model.checkpoint import small_config, write_checkpoint
from upcurve.engine.switches import Switches

CONFIG = small_config(
    vocab_size=400,
    hidden_size=32,
    num_hidden_layers=2,
    full_attention_interval=2,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    shared_expert_intermediate_size=16,
    max_position_embeddings=50_000,
)

SMALL = ["--port", "0", "--context-length", "100"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "mini"
    write_checkpoint(folder, CONFIG, seed=0)
    return folder


class Process:
    """A running `upcurve serve`."""

    def __init__(self, process, log):
        self.process = process
        self.log = log
        self.url = None

    def lines(self):
        return self.log.read_text().splitlines()

    def wait(self, pattern):
        deadline = time.monotonic() + 300
        while not (found := re.search(pattern, self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"no {pattern} in: {self.log.read_text()}"
            time.sleep(0.05)
        return found


@contextmanager
def serving(folder, tmp_path, *options, **environment):
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "upcurve", "serve", str(folder), *SMALL, *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **environment},
        )
    running = Process(process, log)
    try:
        running.url = running.wait(r"ready at (http://\S+)")[1]
        yield running
    finally:
        process.kill()
        process.communicate()


def post(url, body, **headers):
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), headers=headers
    )
    return urllib.request.urlopen(request, timeout=60)


def test_options_signals_and_streams_at_the_end(checkpoint, tmp_path):
    options = ["--served-model-name", "other", "--context-length", "50000", "--off", "all"]
    options += ["--max-running-requests", "2", "--threads", "1", "--load-format", "dummy"]
    options += ["--max-waiting-requests", "0", "--drain-seconds", "0.5"]
    with serving(checkpoint, tmp_path, *options, UPCURVE_API_KEY="key") as running:
        budget, ready = running.lines()
        assert "memory for requests" in budget
        assert "2 states" in budget
        assert ready == f"upcurve: ready at {running.url}"
        body = {"model": "other", "prompt": [1], "max_tokens": 49_000, "ignore_eos": True}
        with pytest.raises(urllib.error.HTTPError, match="401"):
            post(running.url, body)
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            post(running.url, {**body, "n": 3}, Authorization="Bearer key")
        assert b"2 at most" in refused.value.read()
        stream = post(running.url, {**body, "stream": True}, Authorization="Bearer key")
        assert json.loads(stream.readline().removeprefix(b"data: "))["model"] == "other"
        running.process.send_signal(signal.SIGTERM)
        # The stream goes on for the time of grace, then it ends with an error that says why.
        rest = stream.read().split(b"\n\n")
        assert b"the server is stopping" in rest[-2]
        assert b"[DONE]" not in rest[-2]
        assert running.process.wait(60) == 0
        assert running.process.stdout.read() == b""
        assert "Traceback" not in running.log.read_text()


def test_json_is_one_line_once_requests_are_taken(checkpoint, tmp_path):
    with serving(checkpoint, tmp_path, "--json") as running:
        told = json.loads(running.process.stdout.readline())
        (engine,) = told.pop("processes").values()
        os.kill(engine, 0)
        assert told == {
            "role": "server",
            "url": running.url,
            "model": "mini",
            "pid": running.process.pid,
            "layout": {"tp": 1, "ep": 1, "dp": 1},
            "transfers": None,
            "workers": [],
        }
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        assert running.process.stdout.read() == b""


def test_interrupt_ends_an_idle_server_at_once(checkpoint, tmp_path):
    with serving(checkpoint, tmp_path) as running:
        with urllib.request.urlopen(f"{running.url}/v1/models", timeout=60) as answer:
            assert json.load(answer)["data"][0]["id"] == "mini"
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
        assert len(running.lines()) == 2


def test_an_engine_that_dies_ends_the_server(checkpoint, tmp_path):
    with serving(checkpoint, tmp_path) as running:
        (engine,) = descendants(running.process.pid, "spawn_main")
        engine.kill()
        assert running.process.wait(60) == 1
        (line,) = [line for line in running.lines() if "the engine stopped" in line]
        assert "SIGKILL" in line


def refuse(*arguments):
    """Run in this process; return the one line on stderr."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upcurve.cli.click, "echo", lambda text, **_: lines.append(text))
        with pytest.raises(SystemExit) as stopped:
            upcurve.cli.run(["serve", *map(str, arguments)])
    assert stopped.value.code == 2
    (line,) = lines
    assert "\n" not in line
    return line


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # The folder does not exist: loading would say so.
        line = refuse(tmp_path / "none", "--port", port)
    assert line.startswith(f"upcurve: error: port: {port} on 127.0.0.1 cannot be used")
    assert "--port" in line


def test_an_unknown_host(checkpoint):
    assert "host: 'no host'" in refuse(checkpoint, "--host", "no host")


def damaged(checkpoint, folder, name, content):
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", "{", "config.json"),
        ("config.json", json.dumps({**CONFIG, "model_type": "bert"}), "bert"),
        ("model.safetensors", None, "has no model.safetensors"),
        ("model.safetensors", "rubbish", "model.safetensors is corrupt"),
        ("tokenizer.json", "{", "tokenizer.json is corrupt"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is corrupt"),
    ],
)
def test_a_model_folder_with_a_file_missing_or_damaged(checkpoint, tmp_path, name, content, words):
    assert words in refuse(damaged(checkpoint, tmp_path / "model", name, content), *SMALL)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--off", "warp"], "'warp' is not a switch"),
        (["--context-length", "50001"], "context-length: 50001"),
        (["--max-batch-tokens", "8"], "max-batch-tokens: 8"),
        (["--device", "cuda"], "device: "),
        (["--device", "tpu"], "--device"),
        (["--port", "70000"], "--port"),
        (["--threads", "0"], "--threads"),
        (["--threads", "1000000"], "--threads"),
        (["--no-such"], "--no-such"),
    ],
)
def test_unusable_options(checkpoint, options, words, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert words in refuse(checkpoint, *SMALL, *options)


def test_no_folder(tmp_path):
    assert "is not a folder" in refuse(tmp_path / "none", *SMALL)


def test_help_has_an_example_and_the_switches_and_imports_no_torch():
    text = CliRunner().invoke(command, ["--help"]).output
    assert "upcurve serve ./small" in text
    assert all(name in text for name in Switches.names())
    check = "import sys, upcurve.cli.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
