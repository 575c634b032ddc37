"""Greedy answers to many prompts at once, one token of each a step."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from models.training.network import Attention, DeltaNet, Layer, Network

CHECK = 16
"""Steps between looks at whether all have ended."""


class Decoder:
    """State of a batch of sequences; prompts are fed token by token, in step with all others.

    Args:
        network: in any dtype, on any device.
        batch: sequences.
        length: the longest, prompt and answer.
        graphs: whether a CUDA graph holds the step.
    """

    def __init__(self, network: Network, batch: int, length: int, *, graphs: bool) -> None:
        self._network, self._length = network, length
        shape, device = network.shape, network.lm_head.weight.device
        self._tokens = torch.zeros(batch, length + 1, dtype=torch.long, device=device)
        self._given = torch.zeros(batch, dtype=torch.long, device=device)
        self._place = torch.zeros(1, dtype=torch.long, device=device)
        self._states: list[tuple[torch.Tensor, torch.Tensor]] = []
        for i in range(shape.num_hidden_layers):
            if shape.is_attention(i):
                size = (batch, shape.num_key_value_heads, length, shape.head_dim)
                first = torch.zeros(size, dtype=network.dtype, device=device)
                self._states.append((first, torch.zeros_like(first)))
            else:
                taps = shape.linear_conv_kernel_dim
                window = torch.zeros(batch, taps, shape.conv_dim, device=device)
                heads = (shape.linear_num_value_heads, shape.linear_key_head_dim)
                memory = torch.zeros(batch, *heads, shape.linear_value_head_dim, device=device)
                self._states.append((window, memory))
        self._graph: torch.cuda.CUDAGraph | None = None
        if graphs:
            self._step()
            torch.cuda.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._step()

    @torch.no_grad()
    def run(self, prompts: list[list[int]], ends: list[int]) -> list[list[int]]:
        """Return the tokens that follow each prompt, up to and without the first end.

        Args:
            prompts: as many as the batch has, each shorter than the length.
            ends: tokens that end an answer.
        """
        device = self._tokens.device
        self._tokens.zero_()
        for row, ids in enumerate(prompts):
            self._tokens[row, : len(ids)] = torch.tensor(ids, device=device)
        self._given.copy_(torch.tensor([len(ids) for ids in prompts]))
        self._place.zero_()
        for first, second in self._states:
            first.zero_()
            second.zero_()
        stops = torch.tensor(ends, device=device)
        place = torch.arange(self._length + 1, device=device)
        answers = place >= self._given[:, None]
        for step in range(self._length):
            if self._graph is None:
                self._step()
            else:
                self._graph.replay()
            if step % CHECK == CHECK - 1:
                ended = torch.isin(self._tokens, stops) & answers & (place <= step + 1)
                if bool(ended.any(1).all()):
                    break
        rows = self._tokens.tolist()
        out = []
        for ids, row in zip(prompts, rows, strict=True):
            answer = row[len(ids) :]
            stop = next((i for i, token in enumerate(answer) if token in ends), len(answer))
            out.append(answer[:stop])
        return out

    @torch.no_grad()
    def _step(self) -> None:
        """Run the token at the current place, and write the next one where none is given."""
        network, place = self._network, self._place
        x = network.embed(self._tokens.index_select(1, place))
        for layer, state in zip(network.model.layers, self._states, strict=True):
            assert isinstance(layer, Layer)
            normed = layer.input_layernorm(x)
            if layer.attention:
                x = x + self._attend(layer.self_attn, normed, *state)
            else:
                x = x + self._recur(layer.linear_attn, normed, *state)
            x = x + layer.mlp(layer.post_attention_layernorm(x))[0]
        best = network.logits(network.model.norm(x)).argmax(-1)
        after = place + 1
        given = self._tokens.index_select(1, after)
        self._tokens.index_copy_(1, after, torch.where(after < self._given[:, None], given, best))
        place.copy_(torch.clamp(after, max=self._length - 1))

    def _attend(
        self, attention: Attention, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        q, k, v, gate = attention.project(x, self._place)
        keys.index_copy_(2, self._place, k)
        values.index_copy_(2, self._place, v)
        groups = q.unflatten(1, (keys.shape[1], -1)).squeeze(3)
        scores = (groups @ keys.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        seen = torch.arange(self._length, device=x.device) <= self._place
        odds = scores.masked_fill(~seen, -torch.inf).softmax(-1).to(x.dtype)
        return attention.finish((odds @ values).flatten(1, 2).unsqueeze(2), gate)

    def _recur(
        self, net: DeltaNet, x: torch.Tensor, window: torch.Tensor, memory: torch.Tensor
    ) -> torch.Tensor:
        u = F.linear(x, net.in_proj_qkv.weight.to(x.dtype))
        window.copy_(torch.cat([window[:, 1:], u.float()], 1))
        mixed = (window * net.conv1d.weight[:, 0].float().T).sum(1)
        q, k, v = net.split(F.silu(mixed).to(x.dtype))
        decay, beta = (gate[:, 0] for gate in net.gates(x))
        memory.mul_(decay.exp()[..., None, None])
        read = (memory * k.unsqueeze(-1)).sum(-2)
        memory.addcmul_(k.unsqueeze(-1), ((v - read) * beta.unsqueeze(-1)).unsqueeze(-2))
        out = (memory * q.unsqueeze(-1)).sum(-2)
        return net.finish(out.unsqueeze(1), x)
