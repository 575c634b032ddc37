"""The Qwen3.5 MoE text model: shapes, weights, loader, forward pass."""
