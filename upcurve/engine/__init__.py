"""The serving engine: it imports nothing else of upcurve."""
