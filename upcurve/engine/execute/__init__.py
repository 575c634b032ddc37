"""Step runner, sampling, and the engine loop."""
