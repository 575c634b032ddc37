"""Drawing tokens of the whole vocabulary, beside torch: time, ratio, same tokens.

    python benchmarks/sampling.py

Logits are bf16, those of Qwen3.5's vocabulary. Torch: the largest; softmax over exponential noise;
or softmax, a full sort, a running sum and noise over what is kept; in the same kind of graph. The
floor is the bytes of the logits, read once. Tokens are compared with those of the definition in
torch, from the same noise: where rounding decides what is kept, one may be another.
"""

import statistics

import torch
from gpu_timing import Run, share, spread

from upcurve.engine.kernels.sampling import Draw, draw, draw_reference, packed

VOCABULARY, REHEARSED = 248_320, 3000
ROWS = (1, 8, 64)
SPREAD = 3.0
"""Standard deviation of the logits: top-p then keeps some thousands of tokens."""
KINDS = {
    "greedy": (0.0, 0, 1.0),
    "temperature 0.8": (0.8, 0, 1.0),
    "top-k 50, top-p 0.95": (0.8, 50, 0.95),
    "top-p 0.95": (0.8, 0, 0.95),
    "top-p 0.5": (0.8, 0, 0.5),
    "top-p 0.1": (0.8, 0, 0.1),
}


def main():
    run = Run(__doc__, launches)
    copy = run.copy_bandwidth()
    run.table("kind", "rows", "us", "of copy", "torch us", "ratio", "other tokens")
    for kind in KINDS:
        for rows in (1, 2) if run.rehearsed else ROWS:
            run.row(f"{kind} | {rows}", lambda at=(rows, kind): measured(run, copy, *at))
    run.end()


def launches(run):
    for kind in KINDS:
        for rows in ROWS:
            ours_of(logits(run, rows), *how(run, rows, kind))


def measured(run, copy, rows, kind):
    """Return the cells of a row."""
    inputs = [logits(run, rows) for _ in range(run.calls(rows * vocabulary(run) * 2))]
    numbers, few, wide = how(run, rows, kind)
    ours = run.measure([lambda x=x: ours_of(x, numbers, few, wide) for x in inputs])
    torchs = run.measure([lambda x=x: sorting(x, *KINDS[kind]) for x in inputs])
    found = ours_of(inputs[0], numbers, few, wide)
    others = int((found != draw_reference(inputs[0], numbers, no_token=-1)).sum())
    least = share(inputs[0].nbytes / copy, ours)
    ratio = statistics.median(torchs) / statistics.median(ours)
    return spread(ours), least, spread(torchs), f"{ratio:.2f}", others


def vocabulary(run):
    return REHEARSED if run.rehearsed else VOCABULARY


def logits(run, rows):
    return run.normal(rows, vocabulary(run)) * SPREAD


def how(run, rows, kind):
    """Return the numbers of a step of one kind of rows, and whether they are few or wide."""
    draws = [Draw(*KINDS[kind], seed=7, number=row) for row in range(rows)]
    if kind == "greedy":
        return None, False, False
    numbers = torch.tensor(packed(draws), device=run.device).view(5, rows)
    return numbers, draws[0].few, draws[0].wide


def ours_of(x, numbers, few, wide):
    return draw(x, numbers, few=few, wide=wide, no_token=-1)


def sorting(x, temperature, top_k, top_p):
    """Draw as torch alone does it."""
    if temperature == 0:
        return x.argmax(-1)
    probabilities = torch.softmax(x.float() / temperature, -1)
    noise = torch.empty_like(probabilities).exponential_()
    if not top_k and top_p == 1:
        return (probabilities / noise).argmax(-1)
    ordered, ids = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    keep = ordered.cumsum(-1) - ordered < top_p
    if top_k:
        keep[:, top_k:] = False
    place = (ordered / noise).masked_fill_(~keep, -1.0).argmax(-1, keepdim=True)
    return ids.gather(-1, place).squeeze(-1)


if __name__ == "__main__":
    main()
