"""Prints over how many ranks' memory the norms sum that a rank of several has compiled; 0: none.

A program of its own, because nothing may be interpreted:

    python -m tests.engine.portability.summed
"""

import sys

import torch

from upcurve.engine.portability.chips import CHIPS
from upcurve.engine.portability.models import known_models
from upcurve.engine.portability.steps import LEAST, variants


def main():
    models = [each for each in known_models() if each.layout.tp > 1]
    for chip in CHIPS.values():
        found = variants(chip, models, LEAST, every=False)
        ranks = {each.options["ranks"] for each in found if each.kernel.endswith("._add_norm")}
        sys.stdout.write(f"{chip.architecture} {sorted(ranks)}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
