"""Grade-school word problems with worked steps, by seed; what is held out is never trained on."""

from upcurve.accuracy.problems.generator import FAMILIES, held_out, training
from upcurve.accuracy.problems.problem import Problem, read_problems, write_problems

__all__ = ["FAMILIES", "Problem", "held_out", "read_problems", "training", "write_problems"]
