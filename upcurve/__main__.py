"""`python -m upcurve` is the `upcurve` command."""

from upcurve.cli import run

run()
