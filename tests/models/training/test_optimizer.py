from __future__ import annotations

import torch
from torch import nn

from models.training.optimizer import BETAS, EPSILON, Optimizer, orthogonal


def draw(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_orthogonal_keeps_directions_and_evens_singular_values() -> None:
    for size in [(3, 16, 40), (2, 40, 16), (1, 24, 24)]:
        matrices = draw(*size)
        out = orthogonal(matrices).float()
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        inner = u.transpose(-1, -2) @ out @ v.transpose(-1, -2)
        diagonal = inner.diagonal(dim1=-2, dim2=-1)
        assert diagonal.min() > 0.4
        assert diagonal.max() < 1.3
        assert (inner - torch.diag_embed(diagonal)).abs().max() < 0.1


class Model(nn.Module):
    """One parameter for each rule."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(draw(8, 12, seed=1))
        self.experts = nn.Parameter(draw(3, 8, 12, seed=2))
        self.embed_tokens = nn.Parameter(draw(8, 12, seed=3))
        self.bias = nn.Parameter(draw(12, seed=4))


def test_vectors_and_embeddings_move_as_adam_moves_them() -> None:
    model, wanted = Model(), Model()
    optimizer = Optimizer(model, matrix_rate=0.02, other_rate=0.004)
    adam = torch.optim.Adam([wanted.embed_tokens, wanted.bias], 0.004, BETAS, EPSILON)
    for turn in range(4):
        for each in (model, wanted):
            for place, parameter in enumerate(each.parameters()):
                parameter.grad = draw(*parameter.shape, seed=10 * turn + place)
        optimizer.schedule.fill_(1.0)
        optimizer.step()
        adam.step()
    torch.testing.assert_close(model.embed_tokens, wanted.embed_tokens)
    torch.testing.assert_close(model.bias, wanted.bias)


def test_matrices_move_against_their_orthogonal_gradient() -> None:
    model = Model()
    before = [p.detach().clone() for p in (model.weight, model.experts)]
    for parameter in model.parameters():
        parameter.grad = draw(*parameter.shape, seed=7)
    optimizer = Optimizer(model, matrix_rate=0.02, other_rate=0.004)
    optimizer.schedule.fill_(0.5)
    optimizer.step()
    for was, now in zip(before, (model.weight, model.experts), strict=True):
        assert now.grad is not None
        moved = (was - now).detach().view(-1, 8, 12) / 0.01
        # The first momentum is a part of the gradient; products of bf16 round differently.
        wanted = orthogonal(now.grad.view(-1, 8, 12)).float()
        assert (moved - wanted).norm() < 0.1 * wanted.norm()


def test_a_schedule_of_zero_moves_nothing_and_reset_forgets() -> None:
    model, fresh = Model(), Model()
    optimizer = Optimizer(model, matrix_rate=0.02, other_rate=0.004)
    for parameter in model.parameters():
        parameter.grad = draw(*parameter.shape, seed=8)
    optimizer.step()
    for moved, still in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(moved, still)
    optimizer.reset()
    other = Optimizer(fresh, matrix_rate=0.02, other_rate=0.004)
    for each, steps in ((model, optimizer), (fresh, other)):
        for parameter in each.parameters():
            parameter.grad = draw(*parameter.shape, seed=9)
        steps.schedule.fill_(1.0)
        steps.step()
    for one, two in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(one, two)
