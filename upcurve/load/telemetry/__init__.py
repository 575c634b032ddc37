"""What the server and its GPUs say about themselves along a run."""

from upcurve.load.telemetry.gpu import GpuSampler
from upcurve.load.telemetry.scrape import MetricsScraper

__all__ = ["GpuSampler", "MetricsScraper"]
