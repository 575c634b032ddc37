"""The model as it is trained: whole sequences, gradients, and all experts as one product.

Parameters carry the names of the checkpoint. What is computed is transformers'
`Qwen3_5MoeForCausalLM`, and the multi-token-prediction head that published checkpoints keep under
`mtp`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.training.delta_rule import delta_rule
from models.training.shape import Shape


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply by a matrix in the dtype of x; the master copy may be float32."""
    return F.linear(x, weight.to(x.dtype))


class Weight(nn.Module):
    """A parameter called `weight`."""

    def __init__(self, *size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))


class Norm(Weight):
    """Zero-centred RMS norm: multiplied by 1 + weight, in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x [..., size] normalised over its last dimension, in its dtype."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * (1.0 + self.weight.float())).to(x.dtype)


def normalised(x: torch.Tensor) -> torch.Tensor:
    """Return vectors of length one, float32."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


class DeltaNet(nn.Module):
    """Gated DeltaNet."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        hidden, heads = shape.hidden_size, shape.linear_num_value_heads
        self.shape = shape
        self.in_proj_qkv = Weight(shape.conv_dim, hidden)
        self.in_proj_z = Weight(shape.value_dim, hidden)
        self.in_proj_b = Weight(heads, hidden)
        self.in_proj_a = Weight(heads, hidden)
        self.conv1d = Weight(shape.conv_dim, 1, shape.linear_conv_kernel_dim)
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.dt_bias = nn.Parameter(torch.zeros(heads))
        self.norm = Weight(shape.linear_value_head_dim)
        self.out_proj = Weight(hidden, shape.value_dim)

    def split(self, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cut q, k and v [..., heads, D] out of the convolved channels; float32, ready to use."""
        shape = self.shape
        q, k, v = mixed.float().split([shape.key_dim, shape.key_dim, shape.value_dim], -1)
        repeats = shape.linear_num_value_heads // shape.linear_num_key_heads
        width = shape.linear_key_head_dim
        q = normalised(q.unflatten(-1, (-1, width))) * width**-0.5
        k = normalised(k.unflatten(-1, (-1, width)))
        q, k = q.repeat_interleave(repeats, -2), k.repeat_interleave(repeats, -2)
        return q, k, v.unflatten(-1, (-1, shape.linear_value_head_dim))

    def gates(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logarithm of the decay and beta [..., heads], float32."""
        a, b = linear(x, self.in_proj_a.weight).float(), linear(x, self.in_proj_b.weight).float()
        return -self.A_log.float().exp() * F.softplus(a + self.dt_bias.float()), b.sigmoid()

    def finish(self, out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Norm, gate and project the heads' outputs [..., heads, Dv]."""
        z = linear(x, self.in_proj_z.weight).float().unflatten(-1, out.shape[-2:])
        out = out * torch.rsqrt(out.square().mean(-1, keepdim=True) + self.shape.rms_norm_eps)
        out = out * self.norm.weight.float() * F.silu(z)
        return linear(out.flatten(-2).to(x.dtype), self.out_proj.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix tokens x [B, S, hidden], S a multiple of 64, from an empty state."""
        u = linear(x, self.in_proj_qkv.weight)
        taps, length = self.shape.linear_conv_kernel_dim, x.shape[1]
        padded = F.pad(u, (0, 0, taps - 1, 0)).float()
        weight = self.conv1d.weight[:, 0].float()
        mixed = torch.zeros_like(u, dtype=torch.float32)
        for tap in range(taps):
            mixed = mixed + padded[:, tap : tap + length] * weight[:, tap]
        q, k, v = self.split(F.silu(mixed).to(x.dtype))
        decay, beta = self.gates(x)
        return self.finish(delta_rule(q, k, v, decay, beta), x)


def rotary(shape: Shape, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines [positions, rotary_dim / 2], float32."""
    slots = torch.arange(0, shape.rotary_dim, 2, dtype=torch.float32, device=positions.device)
    angles = positions.float()[:, None] / shape.rope_theta ** (slots / shape.rotary_dim)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the leading dimensions of heads [..., S, D] in pairs (i, i + rotary_dim / 2)."""
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


class Attention(nn.Module):
    """Gated attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        hidden, width = shape.hidden_size, shape.head_dim
        self.shape = shape
        self.q_proj = Weight(2 * shape.num_attention_heads * width, hidden)
        self.k_proj = Weight(shape.num_key_value_heads * width, hidden)
        self.v_proj = Weight(shape.num_key_value_heads * width, hidden)
        self.o_proj = Weight(hidden, shape.num_attention_heads * width)
        self.q_norm = Norm(width, shape.rms_norm_eps)
        self.k_norm = Norm(width, shape.rms_norm_eps)

    def project(
        self, x: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return q, k, v [B, heads, S, D], rotated, and the gate [B, S, heads * D]."""
        width = self.shape.head_dim
        q, gate = linear(x, self.q_proj.weight).unflatten(-1, (-1, 2 * width)).chunk(2, -1)
        k = linear(x, self.k_proj.weight).unflatten(-1, (-1, width))
        v = linear(x, self.v_proj.weight).unflatten(-1, (-1, width))
        cos, sin = rotary(self.shape, positions)
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin)
        return q, k, v.transpose(1, 2), gate.flatten(-2)

    def finish(self, out: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Gate and project the heads' outputs [B, heads, S, D]."""
        return linear(out.transpose(1, 2).flatten(-2) * gate.sigmoid(), self.o_proj.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend causally over tokens x [B, S, hidden]."""
        q, k, v, gate = self.project(x, torch.arange(x.shape[1], device=x.device))
        repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        return self.finish(F.scaled_dot_product_attention(q, k, v, is_causal=True), gate)


class Experts(nn.Module):
    """The weights of all experts of a layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        count, inner, hidden = shape.num_experts, shape.moe_intermediate_size, shape.hidden_size
        self.gate_up_proj = nn.Parameter(torch.zeros(count, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.zeros(count, hidden, inner))


class SharedExpert(nn.Module):
    """The expert that every token visits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner, hidden = shape.moe_intermediate_size, shape.hidden_size
        self.gate_proj = Weight(inner, hidden)
        self.up_proj = Weight(inner, hidden)
        self.down_proj = Weight(hidden, inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output for tokens x [..., hidden]."""
        inner = F.silu(linear(x, self.gate_proj.weight)) * linear(x, self.up_proj.weight)
        return linear(inner, self.down_proj.weight)


class MixtureOfExperts(nn.Module):
    """Routed experts and the shared one.

    All experts compute all tokens, as one wide product whose parts the router's weights scale: at
    this size that is faster than to sort tokens, and gives the same.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.chosen = shape.num_experts_per_tok
        self.gate = Weight(shape.num_experts, shape.hidden_size)
        self.experts = Experts(shape)
        self.shared_expert = SharedExpert(shape)
        self.shared_expert_gate = Weight(1, shape.hidden_size)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output and the balance loss: 1 where all experts are used evenly."""
        odds = linear(x, self.gate.weight).float().softmax(-1)
        best, ids = odds.topk(self.chosen, -1)
        best = best / best.sum(-1, keepdim=True)
        weights = torch.zeros_like(odds).scatter(-1, ids, best)
        used = (weights.detach() > 0).float().flatten(0, -2).mean(0) / self.chosen
        balance = odds.shape[-1] * (used * odds.flatten(0, -2).mean(0)).sum()
        count, double, hidden = self.experts.gate_up_proj.shape
        inner = linear(x, self.experts.gate_up_proj.reshape(count * double, hidden))
        gate, up = inner.unflatten(-1, (count, double)).chunk(2, -1)
        inner = F.silu(gate) * up * weights.unsqueeze(-1).to(x.dtype)
        down = self.experts.down_proj.transpose(0, 1).reshape(hidden, -1)
        shared = linear(x, self.shared_expert_gate.weight).sigmoid() * self.shared_expert(x)
        return linear(inner.flatten(-2), down) + shared, balance


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape, *, attention: bool) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        if attention:
            self.self_attn = Attention(shape)
        else:
            self.linear_attn = DeltaNet(shape)
        self.attention = attention
        self.mlp = MixtureOfExperts(shape)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output for x [B, S, hidden], and the balance loss."""
        mixer = self.self_attn if self.attention else self.linear_attn
        x = x + mixer(self.input_layernorm(x))
        out, balance = self.mlp(self.post_attention_layernorm(x))
        return x + out, balance


class Trunk(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = Weight(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(
            Layer(shape, attention=shape.is_attention(i)) for i in range(shape.num_hidden_layers)
        )
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)


class NextTokens(nn.Module):
    """The multi-token-prediction head: one attention layer over hidden state and next token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        hidden, eps = shape.hidden_size, shape.rms_norm_eps
        self.pre_fc_norm_embedding = Norm(hidden, eps)
        self.pre_fc_norm_hidden = Norm(hidden, eps)
        self.fc = Weight(hidden, 2 * hidden)
        self.layers = nn.ModuleList([Layer(shape, attention=True)])
        self.norm = Norm(hidden, eps)


class Network(nn.Module):
    """The whole model.

    Args:
        shape: its sizes.
        dtype: of activations and of matrices as they are multiplied.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        self.dtype = dtype
        self.model = Trunk(shape)
        self.lm_head = Weight(shape.vocab_size, shape.hidden_size)
        self.mtp = NextTokens(shape)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return embeddings of token ids."""
        return F.embedding(ids, self.model.embed_tokens.weight).to(self.dtype)

    def hidden(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden states [B, S, H] after the last norm, and the mean balance loss."""
        x, balances = self.embed(ids), []
        for layer in self.model.layers:
            x, balance = layer(x)
            balances.append(balance)
        return self.model.norm(x), torch.stack(balances).mean()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [..., vocab], float32."""
        return linear(hidden, self.lm_head.weight).float()

    def ahead(self, hidden: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        """Return hidden states that predict the token after the next.

        Args:
            hidden: [B, S, H] of `hidden`.
            following: [B, S], the next token of each place.
        """
        parts = [
            self.mtp.pre_fc_norm_embedding(self.embed(following)),
            self.mtp.pre_fc_norm_hidden(hidden),
        ]
        x, _ = self.mtp.layers[0](linear(torch.cat(parts, -1), self.mtp.fc.weight))
        out: torch.Tensor = self.mtp.norm(x)
        return out
