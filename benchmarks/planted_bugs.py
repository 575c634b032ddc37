"""Which check catches which planted bug: exact match of problems, and divergence, by format.

    python benchmarks/planted_bugs.py                                random weights, on the CPU
    python benchmarks/planted_bugs.py models/small --problems 200    a trained model, on the CPU
    python benchmarks/planted_bugs.py models/small --problems 500 --device cuda    and on a GPU

Each bug (tests/engine/fidelity/bugs.py) is put into the engine's source, in torch and in kernels;
the model is loaded and served with it, all switches on. Divergence is that of `upcurve diverge`,
with its limits. Equal logits are seldom among few experts: a tie shows in the random model, whose
64 choose 8. The gate is that of `upcurve eval`: not inferior to the engine without a bug by
--margin, shown with 95 % confidence on the same problems. With random weights there is no score.

Exits with 1 where neither catches a bug in any format, or one of them rejects the engine without.
"""

import argparse
import math
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from tests.engine.fidelity.bugs import BUGS
from tests.engine.fidelity.planting import planted
from upcurve.accuracy.problems import held_out
from upcurve.accuracy.proportions import paired_difference, wilson
from upcurve.accuracy.scoring import is_right
from upcurve.accuracy.task import PROBLEMS_SEED
from upcurve.engine.fidelity import check
from upcurve.engine.fidelity.check import Format, Limits, Reference, Steps
from upcurve.engine.fidelity.divergence import Divergence
from upcurve.engine.fidelity.forced import context_of
from upcurve.engine.fidelity.text import text_of
from upcurve.engine.model.checkpoint import small_config, write_checkpoint
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.schedule.request import Request, SamplingParameters
from upcurve.engine.serve.tokenizer import ByteTokenizer
from upcurve.engine.switches import Switches

FORMATS = {"fp32": Format("fp32"), "bf16": Format("bf16"), "fp8": Format("bf16", "fp8")}
ANSWER = 256
"""Most tokens of an answer."""
HEADS = (
    *("bug", "format", "score", "95 % interval", "KL mean", "KL max", "same token"),
    *("gate", "divergence", "seconds"),
)


@dataclass
class Row:
    """One bug in one format."""

    bug: str
    form: str
    lost: Divergence
    plain: float
    """Mean KL of plain torch in the format."""
    limits: Limits
    right: list[bool] | None
    rejected: bool | None
    """By the gate; None without problems."""
    seconds: float

    @property
    def diverged(self):
        """Whether the divergence is beyond the limits."""
        return not self.limits.passed(self.lost)

    def cells(self):
        """Return the row of the table."""
        score, interval = "-", "-"
        if self.right:
            score = f"{sum(self.right) / len(self.right):.1%}"
            low, high = wilson(sum(self.right), len(self.right))
            interval = f"{low:.1%} to {high:.1%}"
        return (
            *(self.bug, self.form, score, interval),
            *(f"{self.lost.kl_mean:.1e}", f"{self.lost.kl_max:.1e}", f"{self.lost.agreement:.1%}"),
            {None: "-", True: "caught", False: "passed"}[self.rejected],
            "caught" if self.diverged else "passed",
            f"{self.seconds:.0f}",
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, help="a checkpoint folder; random without")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--formats", default="fp32,bf16,fp8")
    parser.add_argument("--bugs", help="some of them, by a part of the name, comma-separated")
    parser.add_argument("--text", type=Path, help="of the divergence, as upcurve diverge --text")
    parser.add_argument("--passages", type=int, help="of the text")
    parser.add_argument("--problems", type=int, default=0, help="to be answered; 0: no score")
    parser.add_argument("--margin", type=float, default=0.02)
    parser.add_argument("--step-tokens", type=int)
    parser.add_argument("--requests", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {vars(arguments)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.model or random_model(Path(name), arguments.device)
        rows = Bench(folder, arguments).run()
    sys.exit(report(rows))


def random_model(folder, device):
    config = small_config(num_hidden_layers=4, vocab_size=1000, max_position_embeddings=512)
    if device == "cuda":  # whose FP8 kernels take whole blocks
        config |= {"moe_intermediate_size": 128, "shared_expert_intermediate_size": 128}
    write_checkpoint(folder, config, seed=0)
    return folder


class Bench:
    """One model, its text and its problems."""

    def __init__(self, folder, arguments):
        self.folder = folder
        self.device = torch.device(arguments.device)
        self.formats = {name: FORMATS[name] for name in arguments.formats.split(",")}
        parts = (arguments.bugs or "").split(",")
        self.bugs = [bug for bug in BUGS if any(part in bug.name for part in parts)]
        gpu = arguments.device == "cuda"
        if not gpu:
            self.bugs = [bug for bug in self.bugs if bug.torch]
        self.margin = arguments.margin
        shapes = ModelShapes.from_folder(folder)
        self.passages, self.title = text_of(
            folder,
            arguments.text,
            vocab_size=shapes.vocab_size,
            context=shapes.max_position_embeddings,
            limit=arguments.passages or (48 if gpu else 12),
        )
        self.steps = Steps.sized(
            len(self.passages),
            gpu=gpu,
            step_tokens=arguments.step_tokens,
            requests=arguments.requests,
        )
        self.tokenizer = ByteTokenizer.from_folder(folder)
        self.problems = problems(arguments.problems)
        self.prompts = [
            self.tokenizer.encode(f"Question: {each.question}\nAnswer:", add_special_tokens=True)
            for each in self.problems
        ]
        longest = max([0, *map(len, self.prompts)]) + ANSWER if self.prompts else 0
        self.context = max(context_of(self.passages), longest)

    def run(self):
        """Print a row for each bug and format, and return them."""
        tokens = sum(len(each.output) for each in self.passages.values())
        print(
            f"{tokens} tokens of {len(self.passages)} passages ({self.title}), "
            f"{len(self.problems)} problems"
        )
        waiting = [
            check.compiling(self.folder, form, self.steps, self.context, self.device)
            for form in self.formats.values()
        ]
        reference = Reference.of(self.folder, self.passages, self.device, Format("fp32"))
        print(f"perplexity {reference.perplexity:.4g} in float32\n")
        for wait in waiting:
            wait()
        print("| " + " | ".join(HEADS) + " |\n|---|---|" + "---:|" * 5 + "---|---|---:|")
        rows = []
        for name, form in self.formats.items():
            model = check.load(self.folder, self.device, form)
            plain = reference.rounding(model)
            clean = self.row("none", name, reference, plain, None)
            rows.append(clean)
            for bug in self.bugs:
                if name in bug.formats:
                    with planted(bug.edits):
                        rows.append(self.row(bug.name, name, reference, plain, clean.right))
        return rows

    def row(self, bug, name, reference, plain, clean):
        """Serve the model as it is now, and hold it against the reference and clean answers."""
        started = time.monotonic()
        model = check.load(self.folder, self.device, self.formats[name])
        engine = check.serve(model, Switches(), self.steps, self.context)
        lost = reference.against(engine.logits(self.passages))
        right = self.answered(engine.engine) if self.problems else None
        rejected = None if right is None else inferior(right, clean or right, self.margin)
        seconds = time.monotonic() - started
        row = Row(bug, name, lost, plain.kl_mean, Limits.over(plain), right, rejected, seconds)
        print("| " + " | ".join(row.cells()) + " |", flush=True)
        return row

    def answered(self, engine):
        """Return which problems are answered right; one that ends with an error is not."""
        sampling = SamplingParameters(ANSWER, temperature=0)
        requests = [Request(str(i), prompt, sampling) for i, prompt in enumerate(self.prompts)]
        for request in requests:
            engine.add(request)
        while engine.has_work:
            engine.step()
        texts = [
            b"".join(map(self.tokenizer.token_bytes, each.output)).decode(errors="replace")
            for each in requests
        ]
        return [
            is_right(text, problem.answer, "strict")
            for text, problem in zip(texts, self.problems, strict=True)
        ]


def problems(count):
    if not count:
        return []
    return held_out(count, PROBLEMS_SEED)


def inferior(right, clean, margin):
    """Return whether the gate rejects: it is not shown that at most the margin is lost."""
    gained = sum(a and not b for a, b in zip(right, clean, strict=True))
    lost = sum(b and not a for a, b in zip(right, clean, strict=True))
    return paired_difference(gained, lost, len(right), 0.9)[0] <= -margin


def report(rows):
    """Print which check catches which bug, and how far limits lie from both sides."""
    clean = [row for row in rows if row.bug == "none"]
    planted_rows = [row for row in rows if row.bug != "none"]
    formats = [row.form for row in clean]
    print("\n| bug | gate | divergence |\n|---|---|---|")
    missed = []
    for bug in dict.fromkeys(row.bug for row in planted_rows):
        own = [row for row in planted_rows if row.bug == bug]
        caught = [[row.form for row in own if flag(row)] for flag in (by_gate, by_divergence)]
        print(f"| {bug} | " + " | ".join(", ".join(each) or "-" for each in caught) + " |")
        if not any(caught):
            missed.append(bug)
    print("\n| format | plain torch | without a bug | limit | least of a bug | times the limit |")
    print("|---|---:|---:|---:|---:|---:|")
    for own in clean:
        kls = [row.lost.kl_mean for row in planted_rows if row.form == own.form]
        least = min(kls, default=math.nan)
        print(
            f"| {own.form} | {own.plain:.2e} | {own.lost.kl_mean:.2e} | {own.limits.kl:.2e} | "
            f"{least:.2e} | {least / own.limits.kl:.1f} |"
        )
    alarms = [row.form for row in clean if row.rejected or row.diverged]
    print(f"\ncaught by neither, in {', '.join(formats)}: {', '.join(missed) or 'none'}")
    print(f"false alarms: {', '.join(alarms) or 'none'}")
    return 1 if missed or alarms else 0


def by_gate(row):
    return bool(row.rejected)


def by_divergence(row):
    return row.diverged


if __name__ == "__main__":
    main()
