"""Shapes and token ids of models with random weights: what several benchmarks share."""

import torch

from upcurve.engine.model.checkpoint import small_config

SMALL = {"max_position_embeddings": 4096}


def random_ids(count, vocabulary, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocabulary, (count,), generator=generator).tolist()


def shapes_config(model, layers, full_size):
    """Return a config.json of the full layer shapes, or small ones, with fewer layers."""
    config = small_config(**(full_size if model == "35b" else SMALL))
    config["num_hidden_layers"] = layers
    return config
