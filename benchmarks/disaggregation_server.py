"""One `upcurve serve` of `disaggregation.py`: its process, its log, and what it is asked."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import torch

HOST = "127.0.0.1"
READY_SECONDS, CONNECTED_SECONDS = 300, 60


class Server:
    """One `upcurve serve`, and its log."""

    def __init__(self, arguments, model, log, *options, gpu=0):
        self.name = log.name
        self._log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [
            *(sys.executable, "-m", "upcurve", "serve", str(model), "--served-model-name", "model"),
            *("--host", HOST, "--port", "0", "--device", arguments.device, "--check-memory"),
            *("--context-length", str(4 * arguments.isl + arguments.osl)),
            *("--max-running-requests", "16"),
        ]
        if arguments.device == "cpu":
            command += ["--threads", "1", "--max-batch-tokens", "64"]
        if arguments.model == "35b":
            command += ["--load-format", "dummy", "--quantization", "fp8"]
        else:
            command += ["--dtype", arguments.dtype]
        if arguments.gpus > 1:
            name = "HIP_VISIBLE_DEVICES" if torch.version.hip else "CUDA_VISIBLE_DEVICES"
            environment[name] = str(gpu)
        with log.open("w") as file:
            self.process = subprocess.Popen([*command, *options], stderr=file, env=environment)
        self.started = time.monotonic()

    def find(self, pattern):
        """Wait until the log has something, and return it."""
        deadline = self.started + READY_SECONDS
        found = self._until(
            lambda: re.search(pattern, self._log.read_text()), deadline, "is not ready"
        )
        return found[1]

    def _until(self, look, deadline, problem):
        while not (found := look()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{self.name} {problem}:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.05)
        return found

    def ready(self):
        """Wait until it serves."""
        self.port = int(self.find(r"ready at http://\S+:(\d+)"))
        return self

    def connected(self, worker):
        """Wait until it is connected to a prefill worker."""
        name = f'prefill_worker_up{{worker="{worker}"}}'
        deadline = time.monotonic() + CONNECTED_SECONDS

        def up():
            try:
                return self.metrics().get(name) == 1.0
            except OSError:
                return False

        self._until(up, deadline, f"is not connected to prefill worker {worker}")

    def metrics(self):
        """Return its counters and gauges."""
        lines = self._request("GET", "/metrics").read().decode().splitlines()
        return {
            name.removeprefix("upcurve_").removesuffix("_total"): float(value)
            for name, _, value in (each.rpartition(" ") for each in lines if each[:1] != "#")
        }

    def ask(self, prompt, osl):
        """Return tokens, seconds to the first of them, and seconds between two."""
        body = {
            "model": "model",
            "prompt": prompt,
            "max_tokens": osl,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
        tokens, times, begun = [], [], time.perf_counter()
        for line in self._request("POST", "/v1/completions", json.dumps(body)):
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise OSError(event["error"]["message"])
                more = event["choices"][0].get("token_ids") if event["choices"] else None
                if more:
                    tokens += more
                    times.append(time.perf_counter())
        return tokens, times[0] - begun, (times[-1] - times[0]) / max(1, len(tokens) - 1)

    def _request(self, method, path, body=None):
        connection = http.client.HTTPConnection(HOST, self.port, timeout=READY_SECONDS)
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(answer.read().decode())
        return answer

    def kill(self, children):
        """End it and its children at once, as a crash does."""
        for pid in [*children, self.process.pid]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill(descendants(self.process.pid))


def descendants(pid):
    """Return the ids of a process' children and theirs."""
    return [each.pid for each in psutil.Process(pid).children(recursive=True)]
