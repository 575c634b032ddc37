"""`upcurve known-server` as a process: what it prints, serves, and leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from upcurve.cli.known_server import command

COMMAND = [sys.executable, "-m", "upcurve", "known-server", "--port", "0"]
QUICK = ["--first-ms", "5", "--interval-ms", "1"]


@contextmanager
def running(*options, ready="stdout", **environment):
    """Yield the process, and the line that it is ready with."""
    process = subprocess.Popen(
        [*COMMAND, *QUICK, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        yield process, getattr(process, ready).readline()
    finally:
        process.kill()
        process.communicate()


def ask(url, tokens=3, key=None):
    body = {"model": "mine", "prompt": "a b", "max_tokens": tokens, "stream": True}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_writes_the_truth(number, tmp_path):
    path = tmp_path / "truth.json"
    options = ["--model", "mine", "--truth", str(path), "--fault", "short:2", "--json"]
    with running(*options, "--tokens-per-chunk", "2") as (process, line):
        url = json.loads(line)["base_url"]
        assert ask(url).count(" token") == 3
        assert ask(url).count(" token") == 1
        assert not path.exists()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    truth = json.loads(path.read_text())
    assert [each["tokens"] for each in truth["requests"]] == [3, 1]
    assert [each["chunks"] for each in truth["requests"]] == [2, 1]
    assert [each["fault"] for each in truth["requests"]] == [None, "short"]
    assert (truth["summary"]["requests"], truth["summary"]["tokens"]) == (1, 3)
    assert truth["summary"]["ttft_ms"]["p50"] >= 6


def test_it_tells_its_url_to_people_and_asks_for_the_key():
    with running("--model", "mine", ready="stderr", UPCURVE_API_KEY="k1") as (process, line):
        url = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(url)
        assert ask(url, key="k1").endswith("data: [DONE]\n\n")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_request_that_is_running_is_in_the_truth(tmp_path):
    path = tmp_path / "truth.json"
    options = ["--model", "mine", "--truth", str(path), "--interval-ms", "1e6", "--json"]
    with running(*options) as (process, line):
        url = json.loads(line)["base_url"]
        body = b'{"model": "mine", "prompt": "a", "stream": true}'
        request = urllib.request.Request(f"{url}/v1/completions", body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert b" token" in answer.readline()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
    assert process.returncode == 0
    (only,) = json.loads(path.read_text())["requests"]
    assert (only["tokens"], only["ended_ns"]) == (1, None)


@pytest.mark.parametrize(
    "fault", ["cut", "cut:", "cut:0", "cut:x", "cuts:3", "stall:3:x", "stall:3:-1", "stall:3:nan"]
)
def test_bad_faults_are_told(fault):
    done = CliRunner().invoke(command, ["--fault", fault])
    assert done.exit_code == 2
    assert f"{fault!r} is no fault; give e.g. cut:10, of http_429, " in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--truth", "/none/truth.json"], "truth: /none/truth.json cannot be written; "),
        (["--certificate", "/none/c.pem"], "certificate: /none/c.pem and its key cannot be used"),
        (["--key", "/none/k.pem"], "certificate: a key without a certificate; give both"),
        (["--host", "203.0.113.1"], "port: cannot listen on 203.0.113.1:0"),
    ],
)
def test_what_cannot_be_used_is_one_line(options, said):
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"upcurve: error: {said}")
    assert done.stderr.count("\n") == 1
