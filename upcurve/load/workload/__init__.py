"""The workload: which prompts are sent, and how many tokens are asked for."""

from upcurve.load.workload.dataset import DatasetWorkload
from upcurve.load.workload.lengths import Lengths, parse_lengths
from upcurve.load.workload.prompt import Phase, Prompt, Workload
from upcurve.load.workload.synthetic import SharedPrefix, SyntheticWorkload
from upcurve.load.workload.text import TextWorkload

__all__ = [
    "DatasetWorkload",
    "Lengths",
    "Phase",
    "Prompt",
    "SharedPrefix",
    "SyntheticWorkload",
    "TextWorkload",
    "Workload",
    "parse_lengths",
]
