"""A server of known timing: what it wrote, and when, is the truth that a client is held against."""

from upcurve.load.known_server.behaviour import FAULTS, Behaviour, Fault, FaultKind
from upcurve.load.known_server.process import known_server_process, serve_until_signal
from upcurve.load.known_server.server import KnownServer
from upcurve.load.known_server.truth import (
    Served,
    check_truth_file,
    truth,
    truth_summary,
    write_truth,
)

__all__ = [
    "FAULTS",
    "Behaviour",
    "Fault",
    "FaultKind",
    "KnownServer",
    "Served",
    "check_truth_file",
    "known_server_process",
    "serve_until_signal",
    "truth",
    "truth_summary",
    "write_truth",
]
