"""Whether a model can be spread as a layout says; nothing here imports what computes."""

from __future__ import annotations

from collections.abc import Iterator

from upcurve.engine.errors import EngineInputError
from upcurve.engine.model.quantization import BLOCK_SIZE
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.parallel.layout import Layout

BLOCK = BLOCK_SIZE[0]


def check_layout(shapes: ModelShapes, layout: Layout, *, quantized: bool, prefix: str = "") -> None:
    """Check that a model can be spread so.

    Args:
        shapes: of the whole model.
        layout: of its ranks.
        quantized: whether its matrices are FP8.
        prefix: of the options that say the layout: "decode-" where tp is --decode-tp.

    Raises:
        EngineInputError: naming the first size that cannot, and the largest tp or ep that fits.
    """
    problem = _problem(shapes, layout, quantized=quantized)
    if problem is None:
        return
    name, text = problem
    options = [
        each
        for each in _smaller(layout, name)
        if _problem(shapes, each, quantized=quantized) is None
    ]
    best = max((getattr(each, name) for each in options), default=1)
    # Whole experts on each rank have no width that has to be split.
    more = ", or --ep" if "intermediate_size" in text and not prefix else ""
    option = f"{prefix}{name}"
    raise EngineInputError(option, text, f"the largest that fits is --{option} {best}{more}")


def _smaller(layout: Layout, name: str) -> Iterator[Layout]:
    """Yield layouts with less of one size, as like the given one as they can be."""
    for size in range(1, getattr(layout, name)):
        if name == "tp":
            ep = size * layout.dp if layout.joined else min(layout.ep, size)
            if layout.joined or size % ep == 0:
                yield Layout(size, ep, layout.dp)
        elif layout.tp % size == 0:
            yield Layout(layout.tp, size, layout.dp)


def _problem(shapes: ModelShapes, layout: Layout, *, quantized: bool) -> tuple[str, str] | None:
    """Return which of tp and ep does not fit, and why."""
    tp, widths = layout.tp, layout.engine_ranks // layout.ep
    for size in ("num_attention_heads", "linear_num_key_heads", "linear_num_value_heads"):
        if getattr(shapes, size) % tp:
            return "tp", f"{size} {getattr(shapes, size)} is no multiple of {tp} ranks"
    count = shapes.num_key_value_heads
    if count % tp and tp % count:
        return "tp", f"num_key_value_heads {count} neither divides nor is divided by {tp} ranks"
    for size in ("moe_intermediate_size", "shared_expert_intermediate_size"):
        if getattr(shapes, size) % widths:
            return "tp", f"{size} {getattr(shapes, size)} is no multiple of {widths} ranks"
    if shapes.num_experts % layout.ep:
        return "ep", f"num_experts {shapes.num_experts} is no multiple of {layout.ep} ranks"
    if not quantized:
        return None
    for size, total, parts in (
        ("num_attention_heads * head_dim", shapes.num_attention_heads * shapes.head_dim, tp),
        ("num_key_value_heads * head_dim", count * shapes.head_dim, min(tp, count)),
        ("linear_num_key_heads * linear_key_head_dim", shapes.key_dim, tp),
        ("linear_num_value_heads * linear_value_head_dim", shapes.value_dim, tp),
        ("moe_intermediate_size", shapes.moe_intermediate_size, widths),
        ("shared_expert_intermediate_size", shapes.shared_expert_intermediate_size, widths),
    ):
        if parts > 1 and total // parts % BLOCK:
            return "tp", (
                f"{size} {total} over {parts} ranks is {total // parts}, "
                f"no multiple of the {BLOCK} of an FP8 block"
            )
    return None
