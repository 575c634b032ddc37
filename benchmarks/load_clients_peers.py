"""How each load client is asked for the same closed loop, and where its report has the figures."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

MODEL = "known"
PROMPT_TOKENS = 64
OUTPUT_TOKENS = 128


@dataclass(frozen=True)
class Load:
    """A closed loop: `streams` requests in flight until `requests` were sent."""

    base_url: str
    streams: int
    requests: int
    folder: Path
    """Working directory of the run."""
    tokenizer: Path


@dataclass(frozen=True)
class Report:
    """A client's own figures; TPOT is (last token - first) / (n - 1) by request, its median."""

    ttft_ms: tuple[float, float | None]
    """Median, 99th percentile; None where the client has too few requests to tell."""
    tpot_ms: float


class Upcurve:
    """`upcurve bench` of the package that runs this script, as it is by default."""

    name = "upcurve"
    environment = {}  # noqa: RUF012

    def command(self, load):
        """The command line of one point."""
        words = ["--base-url", load.base_url, "--model", MODEL, "--isl", PROMPT_TOKENS]
        words += ["--osl", OUTPUT_TOKENS, "--concurrency", load.streams]
        words += ["--requests", load.requests, "--json"]
        return [sys.executable, "-m", "upcurve", "bench", *map(str, words)]

    def report(self, folder):
        """Its figures, from the last line of JSON on stdout."""
        point = json.loads((folder / "client.out").read_text().splitlines()[-1])
        ttft_ms = point["ttft_ms"]
        return Report((ttft_ms["p50"], ttft_ms["p99"]), point["tpot_ms"]["p50"])


class AIPerf:
    """AIPerf with the server's token counts; its telemetry is off, as there is none to read."""

    name = "AIPerf"
    environment = {}  # noqa: RUF012

    def __init__(self, program):
        self._program = program

    def command(self, load):
        """The command line of one point."""
        words = ["--model", MODEL, "--url", load.base_url, "--endpoint-type", "completions"]
        words += ["--streaming", "--tokenizer", load.tokenizer, "--use-server-token-count"]
        words += ["--concurrency", load.streams, "--request-count", load.requests]
        words += ["--isl", PROMPT_TOKENS, "--isl-stddev", 0]
        words += ["--osl", OUTPUT_TOKENS, "--osl-stddev", 0, "--extra-inputs", "ignore_eos:true"]
        words += ["--no-gpu-telemetry", "--no-server-metrics", "--ui", "none"]
        words += ["--output-artifact-dir", load.folder / "report"]
        return [self._program, "profile", *map(str, words)]

    def report(self, folder):
        """Its figures, from the JSON export."""
        report = json.loads((folder / "report" / "profile_export_aiperf.json").read_text())
        ttft_ms = report["time_to_first_token"]
        return Report((ttft_ms["p50"], ttft_ms["p99"]), report["inter_token_latency"]["p50"])


class GuideLLM:
    """GuideLLM with as many worker processes as are given, or as many as it likes."""

    def __init__(self, program, workers=None):
        self._program = program
        self.name = f"GuideLLM, {workers} workers" if workers else "GuideLLM"
        self.environment = {"HF_HUB_OFFLINE": "1"}
        if workers:
            self.environment["GUIDELLM__MAX_WORKER_PROCESSES"] = str(workers)

    def command(self, load):
        """The command line of one point."""
        backend = f"kind=openai_http,target={load.base_url},model={MODEL}"
        words = ["--backend", f"{backend},request_format=/v1/completions"]
        words += ["--profile", f"kind=concurrent,streams={load.streams}"]
        words += ["--constraint", f"kind=max_requests,count={load.requests}"]
        words += ["--tokenizer", f"kind=hf_auto,model={load.tokenizer}"]
        tokens = f"prompt_tokens={PROMPT_TOKENS},output_tokens={OUTPUT_TOKENS}"
        words += ["--data", f"kind=synthetic_text,{tokens}"]
        words += ["--output", f"kind=json,path={load.folder / 'report.json'}"]
        return [self._program, "run", *words, "--disable-console"]

    def report(self, folder):
        """Its figures, over the requests that succeeded."""
        report = json.loads((folder / "report.json").read_text())
        metrics = report["benchmarks"][0]["metrics"]
        ttft_ms = metrics["time_to_first_token_ms"]["successful"]["percentiles"]
        itl_ms = metrics["inter_token_latency_ms"]["successful"]["percentiles"]
        return Report((ttft_ms["p50"], ttft_ms["p99"]), itl_ms["p50"])


class InferencePerf:
    """inference-perf with a worker process a core, as it is by default."""

    name = "inference-perf"
    environment = {"HF_HUB_OFFLINE": "1"}  # noqa: RUF012

    def __init__(self, program):
        self._program = program

    def command(self, load):
        """The command line of one point, whose configuration is written to the folder."""

        def exactly(tokens):
            bounds = {"min": tokens, "max": tokens, "mean": tokens, "std_dev": 0}
            return {"type": "fixed", "total_count": load.requests, **bounds}

        stage = {"num_requests": load.requests, "concurrency_level": load.streams}
        lifecycle = {"summary": True, "per_stage": False, "per_request": False}
        configuration = {
            "api": {"type": "completion", "streaming": True},
            "data": {
                "type": "random",
                "input_distribution": exactly(PROMPT_TOKENS),
                "output_distribution": exactly(OUTPUT_TOKENS),
            },
            "load": {"type": "concurrent", "stages": [stage]},
            "server": {
                "type": "vllm",
                "model_name": MODEL,
                "base_url": load.base_url,
                "ignore_eos": True,
            },
            "tokenizer": {"pretrained_model_name_or_path": str(load.tokenizer)},
            "report": {"request_lifecycle": {**lifecycle, "use_server_output_tokens": True}},
            "storage": {"local_storage": {"path": str(load.folder / "report")}},
        }
        path = load.folder / "configuration.yaml"
        path.write_text(yaml.safe_dump(configuration))
        return [self._program, "-c", str(path)]

    def report(self, folder):
        """Its figures, over the requests that succeeded; it has seconds."""
        path = folder / "report" / "summary_lifecycle_metrics.json"
        latency = json.loads(path.read_text())["successes"]["latency"]
        ttft, tpot = latency["time_to_first_token"], latency["time_per_output_token"]
        return Report((ttft["median"] * 1e3, ttft["p99"] * 1e3), tpot["median"] * 1e3)


def write_tokenizer(folder):
    """Train a small byte-pair tokenizer in the layout that `transformers` loads offline.

    The clients need one to make prompts of a length; which one does not matter here, as the server
    answers after the same time whatever it is asked.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    syllables = [first + second for first in "bcdfghklmnprstvz" for second in "aeiou"]
    words = [f" {one}{two}" for one in syllables for two in syllables]
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*words, *[" token"] * 1000], trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
