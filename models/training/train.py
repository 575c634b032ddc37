"""Train the small model from nothing, on one GPU.

    python -m models.training.train --out models/small --minutes 5

Problems are generated while the model trains; a checkpoint is written every minute and at the end.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from models.training.checkpoint import write_checkpoint, write_json
from models.training.data import Blocks
from models.training.examine import Examination, Examiner
from models.training.network import Network
from models.training.optimizer import Optimizer
from models.training.shape import Shape
from models.training.start import start
from models.training.step import Step
from models.training.text import train_tokenizer
from upcurve.accuracy.problems import held_out, training

logger = logging.getLogger("training")

WARM, DECAY = 0.01, 0.45
"""Shares of the training time: rising rates at the start, falling rates at the end."""
FIRST_BLOCK = 1_000_000
"""Seed of the first block; seeds below it are of the tokenizer and of examinations."""
HELD_OUT_SEED = 8
"""Of the examination during training; the problems that ship have another seed."""


def schedule(done: float) -> float:
    """Return the factor on step sizes when a share of the training is done."""
    return max(0.0, min(1.0, done / WARM, (1.0 - done) / DECAY))


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Train the small model.",
        epilog="example: python -m models.training.train --out models/small --minutes 5",
    )
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--minutes", type=float, default=5.0, help="for everything (default 5)")
    parser.add_argument("--steps", type=int, help="train so many steps instead")
    parser.add_argument("--rows", type=int, default=64, help="rows of a batch (default 64)")
    parser.add_argument("--length", type=int, default=512, help="tokens of a row (default 512)")
    parser.add_argument("--matrix-rate", type=float, default=0.02, help="Muon's step size")
    parser.add_argument("--other-rate", type=float, default=0.004, help="Adam's step size")
    parser.add_argument("--problems", type=int, default=2000, help="of the last examination")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true", help="do not compile layers")
    parser.add_argument("--no-graph", action="store_true", help="do not capture the step")
    return parser.parse_args()


class Run:
    """One training run: its parts, its clock and its record."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.begun = time.monotonic()
        self.options = options
        shape = Shape()
        self.tokenizer = train_tokenizer(shape.vocab_size)
        self._say("tokenizer has %d tokens", self.tokenizer.get_vocab_size())
        self.blocks = Blocks(
            self.tokenizer,
            seed=FIRST_BLOCK * (1 + options.seed),
            rows=options.rows,
            length=options.length,
            workers=options.workers,
        )
        device = torch.device(options.device)
        self.cuda = device.type == "cuda"
        self.network = Network(shape, torch.bfloat16 if self.cuda else torch.float32)
        start(self.network, options.seed)
        self.network.to(device)
        self.parameters = sum(p.numel() for p in self.network.parameters())
        self._say("%d parameters on %s", self.parameters, device)
        self.step = self._prepare()
        self.curve: list[dict[str, float]] = []
        self.exams: list[dict[str, Any]] = []
        reserve = 20.0 if self.cuda else 0.0
        self.training_begun = time.monotonic()
        self.seconds: float = options.minutes * 60 - (self.training_begun - self.begun) - reserve
        self.steps = 0

    def _say(self, text: str, *values: object) -> None:
        logger.info("%6.1f s  " + text, time.monotonic() - self.begun, *values)

    def _prepare(self) -> Step:
        """Make the step; where compiling or capturing fails, train without and say so."""
        options = self.options
        compiled, graph = self.cuda and not options.no_compile, self.cuda and not options.no_graph
        while True:
            optimizer = Optimizer(
                self.network, matrix_rate=options.matrix_rate, other_rate=options.other_rate
            )
            try:
                step = Step(
                    self.network,
                    optimizer,
                    rows=options.rows,
                    length=options.length,
                    compiled=compiled,
                    graph=graph,
                )
            except Exception:
                if not compiled and not graph:
                    raise
                logger.exception("preparing failed, compiled %s, graph %s", compiled, graph)
                compiled, graph = False, compiled and graph
                torch.compiler.set_stance("force_eager")
                self.network.zero_grad(set_to_none=True)
            else:
                self._say("step is ready, compiled %s, graph %s", compiled, graph)
                return step

    def done(self) -> float:
        """Return the share of the training that is done."""
        if self.options.steps:
            return self.steps / int(self.options.steps)
        return (time.monotonic() - self.training_begun) / self.seconds

    def train(self) -> None:
        """Train to the end of the time or of the steps."""
        options = self.options
        quick = Examiner(
            self.network, self.tokenizer, held_out(min(500, options.problems), HELD_OUT_SEED)
        )
        self._say("examiner is ready")
        saved = time.monotonic()
        for block in self.blocks:
            done = self.done()
            if done >= 1:
                break
            self.step(block, schedule(done))
            self.steps += 1
            if self.steps % 100 == 0 or self.steps in (1, 10, 30):
                self._note(done)
            if time.monotonic() - saved > 60:
                saved = time.monotonic()
                self._examine("quick", quick)
                self.save()
        self._note(1.0)
        trained = time.monotonic() - self.training_begun
        tokens = self.steps * options.rows * options.length
        self.speed = {"seconds": trained, "tokens": tokens, "tokens_per_second": tokens / trained}
        self._say("%d steps, %d tokens, %.0f tokens/s", self.steps, tokens, tokens / trained)
        self.save()

    def _note(self, done: float) -> None:
        losses = self.step.losses()
        self.curve.append({"step": self.steps, "seconds": time.monotonic() - self.begun, **losses})
        if self.steps % 500 == 0 or self.steps < 100 or done == 1:
            self._say(
                "step %6d  loss %.4f  token after %.4f  balance %.3f  rate %.3f",
                self.steps,
                losses["next_token"],
                losses["token_after"],
                losses["balance"],
                schedule(done),
            )

    def _examine(self, name: str, examiner: Examiner) -> Examination:
        result = examiner()
        self.exams.append(
            {"name": name, "step": self.steps, "exact_match": result.exact_match, **asdict(result)}
        )
        self._say("%s: %d of %d right", name, result.right, result.problems)
        return result

    def examine(self) -> None:
        """Ask held-out problems, as completions and as chats, and problems as in training."""
        count = self.options.problems
        held = held_out(count, HELD_OUT_SEED)
        seen = list(islice(training(1), count // 2))
        for name, problems, chat in [
            ("held_out", held, False),
            ("held_out_chat", held[: count // 2], True),
            ("as_in_training", seen, False),
        ]:
            examiner = Examiner(self.network, self.tokenizer, problems, chat=chat)
            result = self._examine(name, examiner)
            self._say("%s", {family: round(x, 3) for family, x in result.by_family.items()})
            del examiner

    def save(self) -> None:
        """Write the checkpoint and the record so far."""
        write_checkpoint(self.options.out, self.network, self.tokenizer)
        write_json(self.options.out / "metrics.json", self.record())

    def record(self) -> dict[str, Any]:
        """Return what is known of this run."""
        device = torch.cuda.get_device_name() if self.cuda else "CPU"
        return {
            "device": device,
            "torch": torch.__version__,
            "options": {name: str(value) for name, value in vars(self.options).items()},
            "shape": asdict(self.network.shape),
            "parameters": self.parameters,
            "steps": self.steps,
            "speed": getattr(self, "speed", None),
            "seconds_in_all": time.monotonic() - self.begun,
            "peak_memory_bytes": torch.cuda.max_memory_allocated() if self.cuda else None,
            "exams": self.exams,
            "curve": self.curve,
        }


def main() -> None:
    """Train, examine, and write checkpoint and record."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_float32_matmul_precision("high")
    run = Run(arguments())
    try:
        run.train()
        run.examine()
        run.save()
    finally:
        run.blocks.close()
    last = {e["name"]: e["exact_match"] for e in run.exams}
    print(json.dumps({"exact_match": last, "speed": run.speed, "steps": run.steps}))  # noqa: T201


if __name__ == "__main__":
    main()
