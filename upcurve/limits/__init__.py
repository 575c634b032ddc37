"""Model shape x hardware -> bytes, FLOPs, and the throughput that no engine can pass."""
