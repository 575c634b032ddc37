"""The fixed text of a trained model: held-out problems with worked answers, as its token ids.

    python models/divergence_text.py models/small

Writes divergence.jsonl into the folder, which `upcurve diverge` takes by itself. Prompts end within
the question in two of three passages: what a good model is certain of shows little.
"""

import argparse
import json
from pathlib import Path

from upcurve.accuracy.problems import held_out
from upcurve.engine.fidelity.text import OF_THE_MODEL, passage_of
from upcurve.engine.serve.tokenizer import ByteTokenizer
from upcurve.files import write_whole

SEED = 2
"""Other problems than those of the accuracy gate."""
ENDS = (1 / 8, 1 / 2, 1)
"""Of the prompts, as shares of the question, in turns."""


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="a checkpoint folder with tokenizer.json")
    parser.add_argument("--count", type=int, default=64, help="of problems")
    arguments = parser.parse_args()
    tokenizer = ByteTokenizer.from_folder(arguments.model)
    lines = []
    for number, problem in enumerate(held_out(arguments.count, SEED)):
        value = {"question": problem.question, "answer": problem.answer}
        passage = passage_of(value, tokenizer)
        ids = [*passage.prompt, *passage.output]
        end = round(len(passage.prompt) * ENDS[number % len(ENDS)])
        line = {"id": problem.id, "prompt": ids[:end], "output": ids[end:]}
        lines.append(json.dumps(line) + "\n")
    write_whole(arguments.model / OF_THE_MODEL, lambda file: file.write("".join(lines).encode()))


if __name__ == "__main__":
    main()
