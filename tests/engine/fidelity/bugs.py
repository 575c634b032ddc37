"""Bugs that public engines shipped, as changes of this engine's source.

Each is planted in torch, and in the kernels where they compute it, so that a check on the CPU,
under Triton's interpreter and on a GPU meets the same mistake.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.engine.fidelity.planting import Edit


@dataclass(frozen=True)
class Bug:
    """A mistake, and where it was made before."""

    name: str
    happened: str
    """The public bug that it re-enacts."""
    edits: tuple[Edit, ...]
    formats: tuple[str, ...] = ("fp32", "bf16", "fp8")
    """In which it is in the computation."""
    kernels: str | None = None
    """The kernels that have it, as `interpreted` calls them; None where all is in torch."""
    torch: bool = True
    """Whether it is planted in torch too: what only kernels do cannot go wrong there."""


BUGS = (
    Bug(
        "shared expert dropped",
        "SGLang #40754, #35719: the loader had no place for mlp.shared_expert.* beside the routed "
        "experts, warned, and served with an empty row E",
        (
            Edit(
                "model.loader",
                "    weights.prepare()\n    converted",
                "    for layer in weights.layers:\n"
                "        layer.experts.shared_gate_up.weight.zero_()\n"
                "        layer.experts.shared_down.weight.zero_()\n"
                "    weights.prepare()\n    converted",
            ),
        ),
    ),
    Bug(
        "shared weight renormalised",
        "in the manner of SGLang #38963, which divided by the sum of the wrong choices: the shared "
        "expert's sigmoid(gate) belongs behind the division of the routed weights by their sum",
        (
            Edit(
                "kernels.routing",
                "    return torch.cat([weights, shared], -1), torch.cat(",
                "    both = torch.cat([weights, shared], -1)\n"
                "    return both / both.sum(-1, keepdim=True), torch.cat(",
            ),
            Edit(
                "kernels.routing",
                "        chosen_id = tl.where(is_shared, owned, chosen_id)\n",
                "        chosen_id = tl.where(is_shared, owned, chosen_id)\n"
                "        weight = weight / tl.sum(weight, 1)[:, None]\n",
            ),
        ),
        kernels="routing",
    ),
    Bug(
        "shared expert counted twice",
        "SGLang #23084, mended by #26845: under expert parallelism every rank computed the shared "
        "expert whole and the all-reduce summed it (GSM8K 94 % -> 11 % on two ranks); one process "
        "has no second rank, so what that one would add is added to the weight",
        (
            Edit(
                "kernels.routing",
                "shared_scale).unsqueeze(-1)\n",
                "shared_scale).unsqueeze(-1) * 2\n",
            ),
            Edit(
                "kernels.routing",
                "(tl.sigmoid(gate) * shared_scale)",
                "(tl.sigmoid(gate) * shared_scale * 2)",
            ),
        ),
        kernels="routing",
    ),
    Bug(
        "1 + w rounded to bf16",
        "vLLM #55311 and LMDeploy #4790: 1 + w of a zero-centred norm was prepared in the "
        "activations' type, which keeps 7 bits behind the 1",
        (
            Edit(
                "kernels.rms_norm",
                "add_norm_fused(residual, update, 1.0 + weight, eps)",
                "add_norm_fused(residual, update, (1.0 + weight).bfloat16().float(), eps)",
            ),
            Edit(
                "model.weights",
                "torch.add(norm.weight, 1.0, out=norm.one_plus)",
                "norm.one_plus.copy_((norm.weight + 1.0).bfloat16())",
            ),
            Edit(
                "kernels.rms_norm_kernels",
                "    factor = 1.0 + tl.load(weight + channel, mask=inside, other=0.0)\n",
                "    factor = 1.0 + tl.load(weight + channel, mask=inside, other=0.0)\n"
                "    factor = factor.to(tl.bfloat16).to(tl.float32)\n",
            ),
        ),
        kernels="norms",
    ),
    Bug(
        "w instead of 1 + w",
        "llmman #151 and quant.cpp #23: the family's norms were read as Llama's, and multiplied by "
        "weights around 0",
        (
            Edit(
                "kernels.rms_norm",
                "add_norm_fused(residual, update, 1.0 + weight, eps)",
                "add_norm_fused(residual, update, weight, eps)",
            ),
            Edit(
                "kernels.rms_norm_kernels",
                "    factor = 1.0 + tl.load(weight + channel, mask=inside, other=0.0)\n",
                "    factor = tl.load(weight + channel, mask=inside, other=0.0)\n",
            ),
        ),
        kernels="norms",
    ),
    Bug(
        "convolution state off by one",
        "vLLM #56196: a chunk of a prompt stored its last inputs elsewhere than the next one reads "
        "them; here one place further in the ring",
        (
            Edit(
                "kernels.causal_conv",
                "    ring[positions % kernel] = x[length - kept :]",
                "    ring[(positions + 1) % kernel] = x[length - kept :]",
            ),
            Edit(
                "kernels.causal_conv_kernels",
                "((context + row - begin) % kernel) * channels",
                "((context + row - begin + 1) % kernel) * channels",
            ),
        ),
        kernels="delta rule",
    ),
    Bug(
        "recurrent state leaked",
        "vLLM #56524 and lucebox #210: a request began with the state that the one before it left "
        "in its slot",
        (
            Edit(
                "execute.inputs",
                "            self.beginning_slots.append(memory.slot)",
                "            pass",
            ),
            Edit(
                "kernels.gated_delta_scan_kernels",
                "known = inside & (tl.load(contexts + sequence) > 0)",
                "known = inside",
            ),
            Edit(
                "kernels.gated_delta_decode",
                "seen = is_key & (position > 0)",
                "seen = is_key",
            ),
        ),
        kernels="delta rule",
    ),
    Bug(
        "FP8 scale of one block lost",
        "SGLang #23687: a slip in a name dropped scales with a warning, and values were multiplied "
        "as they lay; here of one block of the first layer's shared expert",
        (
            Edit(
                "model.loader",
                "    weights.prepare()\n    converted",
                "    first = weights.layers[0].experts.shared_gate_up.scale\n"
                "    if first is not None:\n"
                "        first[0, 0] = 1.0\n"
                "    weights.prepare()\n    converted",
            ),
        ),
        formats=("fp8",),
    ),
    Bug(
        "split-K race",
        "AITER #3997, vLLM #42240: shares of one sum met in one place, over memory that nobody had "
        "zeroed; here the splits of a decode's attention all write where the first belongs",
        (
            Edit(
                "kernels.paged_attention",
                "place = (row * kv_heads * group + heads) * splits + split",
                "place = (row * kv_heads * group + heads) * splits",
            ),
        ),
        kernels="attention",
        torch=False,
    ),
    Bug(
        "top-k tie",
        "as found in the review of vLLM #42608: of experts with equal logits one is chosen twice, "
        "because it is looked up by its value",
        (
            Edit(
                "kernels.routing",
                "    ids = ids[:, :top_k].to(torch.int32)\n    shared_id = experts",
                "    same = logits[:, None, :experts].float() == chosen[:, :top_k, None]\n"
                "    ids = same.int().argmax(-1).to(torch.int32)\n    shared_id = experts",
            ),
            Edit(
                "kernels.routing",
                "    choice = tl.arange(0, choices)\n",
                "    choice = tl.arange(0, choices)\n    first = order\n",
            ),
            Edit(
                "kernels.routing",
                "        best_id = 65535 - (best & 65535).to(tl.int32)\n",
                "        same = (first >> 16) == (best >> 16)[:, None]\n"
                "        lowest = tl.max(tl.where(same, first & 65535, 0), 1)\n"
                "        best_id = 65535 - lowest.to(tl.int32)\n",
            ),
        ),
        # Logits of float32 are hardly ever equal.
        formats=("bf16", "fp8"),
        kernels="routing",
    ),
    Bug(
        "rotation of all dimensions",
        "MaxText #4616: with multimodal rotation partial_rotary_factor 0.25 was not looked at",
        (
            Edit(
                "model.plan",
                "rotary_table(positions, shapes.rotary_dim, shapes.rope_theta)",
                "rotary_table(positions, shapes.head_dim, shapes.rope_theta)",
            ),
        ),
    ),
)
