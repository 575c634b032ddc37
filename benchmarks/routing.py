"""Routing in one launch, beside torch one operation at a time: time, ratio, error.

    python benchmarks/routing.py
    python benchmarks/routing.py --peer   # with flag_gems installed, whatever it asks for itself

Experts and choices are those of Qwen3.5-35B-A3B and Qwen3.5-397B-A17B, with the shared expert.
Torch: softmax, topk, division by the sum, sigmoid, two concatenations, all in the same kind of
graph. The floor is the bytes of logits, weights and ids. Errors are against float64; ids have to be
the same, also of equal logits, of which bf16 has many. The peer is FlagGems' topk_softmax, a public
Triton kernel behind vLLM's interface: softmax, top-k and renormalisation, without the shared
expert's sigmoid and place.
"""

import importlib.util
import statistics
from pathlib import Path

import torch
from gpu_timing import Run, share, spread

from upcurve.engine.kernels import routing

MODELS = {"256 of which 8": (256, 8), "512 of which 10": (512, 10)}
TOKENS = (1, 16, 128, 1024, 8192, 32768)


def main():
    run = Run(__doc__, launches, [("--peer", {"action": "store_true", "help": "FlagGems beside"})])
    copy = run.copy_bandwidth()
    peer = peer_kernel() if run.arguments.peer else None
    titles = ["tokens", "us", "of copy", "torch us", "ratio", "error", "other ids"]
    run.table("experts", *titles, *(["FlagGems us", "ratio"] if peer else []))
    for model, (experts, top_k) in MODELS.items():
        for tokens in (1, 5) if run.rehearsed else TOKENS:
            run.row(
                f"{model} | {tokens}",
                lambda at=(tokens, experts, top_k): measured(run, copy, peer, *at),
            )
    run.end()


def launches(run):
    for experts, top_k in MODELS.values():
        for tokens in TOKENS:
            fused(logits(run, tokens, experts), top_k)


def measured(run, copy, peer, tokens, experts, top_k):
    """Return the cells of a row."""
    size = tokens * (2 * (experts + 1) + 8 * (top_k + 1))
    inputs = [logits(run, tokens, experts) for _ in range(run.calls(size))]
    ours = run.measure([lambda x=x: fused(x, top_k) for x in inputs])
    torchs = run.measure([lambda x=x: one_at_a_time(x, top_k) for x in inputs])
    ratio = statistics.median(torchs) / statistics.median(ours)
    weights, ids = fused(inputs[0], top_k)
    exact, places = one_at_a_time(inputs[0].double(), top_k)
    error = (weights.double() - exact).abs().max().item()
    others = int((ids != places).sum())
    least = share(size / copy, ours)
    cells = [spread(ours), least, spread(torchs), f"{ratio:.2f}", f"{error:.0e}", others]
    if peer:
        theirs = run.measure([peer_call(peer, x, top_k) for x in inputs])
        cells += [spread(theirs), f"{statistics.median(theirs) / statistics.median(ours):.2f}"]
    return cells


def peer_kernel():
    """Return FlagGems' function; of its package only this file, which needs no other."""
    package = importlib.util.find_spec("flag_gems")
    if package is None:
        raise SystemExit("--peer: there is no flag_gems; pip install --no-deps flag_gems")
    file = Path(package.submodule_search_locations[0]) / "fused" / "topk_softmax.py"
    spec = importlib.util.spec_from_file_location("flag_gems_topk_softmax", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.topk_softmax


def peer_call(peer, x, top_k):
    """Return a call on the same logits, which it wants without the shared expert's column."""
    routed = x[:, :-1].contiguous()
    weights = torch.empty(len(x), top_k, device=x.device)
    ids, rows = (weights.new_empty(weights.shape, dtype=torch.int32) for _ in range(2))
    return lambda: peer(weights, ids, rows, routed, True)


def logits(run, tokens, experts):
    """Return those of a product whose rows are whole lines: the last column is the shared gate."""
    return run.normal(tokens, -(-(experts + 1) // 16) * 16)[:, : experts + 1]


def fused(x, top_k):
    return routing.route(x, top_k, shared=True)


def one_at_a_time(x, top_k):
    """Compute the same in torch, in float32, or in float64 with the ids in order."""
    experts = x.shape[1] - 1
    exact = x.dtype == torch.float64
    probabilities = torch.softmax(x[:, :experts], -1, dtype=None if exact else torch.float32)
    if exact:
        weights, ids = torch.sort(probabilities, dim=-1, descending=True, stable=True)
        weights, ids = weights[:, :top_k], ids[:, :top_k]
    else:
        weights, ids = probabilities.topk(top_k, -1)
    weights = weights / weights.sum(-1, keepdim=True)
    shared = torch.sigmoid(x[:, experts:].to(weights.dtype))
    ids = ids.to(torch.int32)
    return torch.cat([weights, shared], -1), torch.cat(
        [ids, ids.new_full((len(ids), 1), experts)], -1
    )


if __name__ == "__main__":
    main()
