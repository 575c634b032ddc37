"""Shares of a model: put together they are the whole, read one by one they are what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.engine.model.oracle import CPU, tiny_config, write
from upcurve.engine.errors import EngineInputError
from upcurve.engine.kernels.block_scaled import dequantize_blocks
from upcurve.engine.model.checkpoint import fill_dummy, small_config, write_checkpoint
from upcurve.engine.model.layout_check import check_layout
from upcurve.engine.model.loader import load_weights
from upcurve.engine.model.matrix import Rows
from upcurve.engine.model.shapes import ModelShapes
from upcurve.engine.model.sharding import Sharding, take
from upcurve.engine.model.stored import StoredTensor
from upcurve.engine.model.weight_map import weight_map
from upcurve.engine.model.weights import ModelWeights
from upcurve.engine.parallel.layout import Layout

SIZES: dict[str, Any] = {
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "linear_num_key_heads": 8,
    "linear_num_value_heads": 16,
    "num_experts": 16,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "vocab_size": 301,
}
FP8_SIZES: dict[str, Any] = {
    "vocab_size": 301,
    "num_hidden_layers": 2,
    "full_attention_interval": 2,
    "head_dim": 128,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_attention_heads": 4,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
}
layouts = st.sampled_from(
    [Layout(2), Layout(4), Layout(8), Layout(4, 2), Layout(8, 8), Layout(2, 4, 2), Layout(1, 2, 2)]
)


def empty(shapes: ModelShapes, layout: Layout, rank: int, **options: Any) -> ModelWeights:
    return ModelWeights.empty(shapes, CPU, torch.float32, share=layout.share(rank), **options)


def values(target: torch.Tensor | Rows) -> torch.Tensor:
    if isinstance(target, torch.Tensor):
        return target
    weight, scale = target.tensors()
    return dequantize_blocks(weight, scale, torch.float32)


def by_heads(name: str, whole: torch.Tensor, shapes: ModelShapes, share: Any) -> torch.Tensor:
    """Cut a tensor by its heads, experts and widths, seen as dimensions of their own."""
    last, heads, head = name.removesuffix(".weight").rpartition(".")[2], share.heads, share.head
    width = whole.shape[1:]

    def split(tensor: torch.Tensor, count: int, index: int, parts: int) -> torch.Tensor:
        blocks = tensor.reshape(count, -1, *tensor.shape[1:])
        each = count // parts
        return blocks[index * each : (index + 1) * each].flatten(0, 1)

    if last in ("embed_tokens", "lm_head"):
        return whole.split(-(-shapes.vocab_size // heads))[head]
    if last == "q_proj":
        return split(whole, shapes.num_attention_heads, head, heads)
    if last in ("k_proj", "v_proj"):
        count = shapes.num_key_value_heads
        # Query heads of a rank have to find their own key-value head.
        group = shapes.num_attention_heads // count
        mine = range(
            head * shapes.num_attention_heads // heads,
            (head + 1) * shapes.num_attention_heads // heads,
        )
        wanted = sorted({query // group for query in mine})
        return whole.view(count, -1, *width)[wanted].flatten(0, 1)
    if last in ("o_proj", "out_proj"):
        linear = last == "out_proj"
        count = shapes.linear_num_value_heads if linear else shapes.num_attention_heads
        return split(whole.t().contiguous(), count, head, heads).t()
    if last in ("in_proj_qkv", "conv1d"):
        q, k, v = whole.split([shapes.key_dim, shapes.key_dim, shapes.value_dim])
        keys, value_heads = shapes.linear_num_key_heads, shapes.linear_num_value_heads
        parts = [split(each, keys, head, heads) for each in (q, k)]
        return torch.cat([*parts, split(v, value_heads, head, heads)])
    if last in ("in_proj_z", "in_proj_b", "in_proj_a", "A_log", "dt_bias"):
        return split(whole, shapes.linear_num_value_heads, head, heads)
    if ".experts." in name:
        whole = whole.chunk(share.experts)[share.expert]
        if last == "down_proj":
            return whole.chunk(share.widths, -1)[share.width]
        gate, up = whole.chunk(2, 1)
        return torch.cat([each.chunk(share.widths, 1)[share.width] for each in (gate, up)], 1)
    if ".shared_expert." in name:
        return whole.chunk(share.widths, int(last == "down_proj"))[share.width]
    return whole


@settings(max_examples=20)
@given(layout=layouts, kv_heads=st.sampled_from([1, 2, 4, 8]), tied=st.booleans())
def test_a_share_is_its_heads_its_experts_and_its_widths(
    layout: Layout, kv_heads: int, tied: bool
) -> None:
    changes = {**SIZES, "num_key_value_heads": kv_heads, "tie_word_embeddings": tied}
    shapes = ModelShapes.from_config(tiny_config(**changes))
    check_layout(shapes, layout, quantized=False)
    whole = ModelWeights.empty(shapes, CPU, torch.float32)
    fill_dummy(whole, 1)
    for rank in range(layout.engine_ranks):
        share = layout.share(rank)
        sharding = Sharding(shapes, share)
        for name, target in weight_map(whole).items():
            assert isinstance(target, torch.Tensor)
            wanted = by_heads(name, target, shapes, share)
            assert torch.equal(take(target, sharding.cuts(name)), wanted), name


@settings(max_examples=6)
@given(layout=layouts)
def test_dummy_weights_are_one_model_in_every_layout(layout: Layout) -> None:
    shapes = ModelShapes.from_config(tiny_config(**SIZES))
    whole = ModelWeights.empty(shapes, CPU, torch.float32)
    fill_dummy(whole, 3)
    for rank in range(layout.engine_ranks):
        mine = empty(shapes, layout, rank)
        fill_dummy(mine, 3)
        for name, target in weight_map(mine).items():
            wanted = take(values(weight_map(whole)[name]), mine.sharding.cuts(name))
            assert torch.equal(values(target), wanted), name
        # Rows that pad the vocabulary of the last ranks say nothing.
        assert not mine.embedding[len(mine.sharding.vocabulary) :].any()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sharding") / "plain", **SIZES)


@pytest.fixture(scope="module")
def fp8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharding") / "fp8"
    write_checkpoint(folder, small_config(**FP8_SIZES), seed=2, quantization="fp8")
    return folder


@pytest.mark.parametrize("layout", [Layout(4), Layout(4, 2), Layout(1, 2, 2)])
@pytest.mark.parametrize("kind", ["plain", "fp8", "one scale", "quantised"])
def test_a_rank_loads_its_share_and_reads_no_more(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    kind: str,
) -> None:
    folder = request.getfixturevalue("plain" if kind == "plain" else "fp8")
    quantized = kind != "plain"
    if kind == "one scale":
        folder = with_one_scale(folder, tmp_path)
    elif kind == "quantised":
        folder = tmp_path
        write_checkpoint(folder, small_config(**FP8_SIZES), seed=2)
    shapes = ModelShapes.from_folder(folder)
    whole = ModelWeights.empty(shapes, CPU, torch.float32, quantized=quantized)
    load_weights(folder, whole, shapes.quantization)
    read: list[int] = []
    plain_read = StoredTensor.read

    def watch(stored: StoredTensor, cuts: Any = ()) -> torch.Tensor:
        tensor = plain_read(stored, cuts)
        read.append(tensor.nbytes if "scale" not in stored.name else 0)
        return tensor

    monkeypatch.setattr(StoredTensor, "read", watch)
    for rank in range(layout.engine_ranks):
        read.clear()
        mine = empty(shapes, layout, rank, quantized=quantized)
        load_weights(folder, mine, shapes.quantization)
        for name, target in weight_map(mine).items():
            wanted = take(values(weight_map(whole)[name]), mine.sharding.cuts(name))
            assert torch.equal(values(target), wanted), name
        size = 4 if kind in ("plain", "quantised") else None
        held = sum(
            target.shape.numel() * (size or (1 if isinstance(target, Rows) else 4))
            for target in weight_map(mine).values()
        )
        assert sum(read) == held


def with_one_scale(folder: Path, out: Path) -> Path:
    """Give each FP8 matrix one scale."""
    tensors = load_file(folder / "model.safetensors")
    for name in list(tensors):
        if name.endswith("_scale_inv"):
            tensors[name] = tensors[name].max()
    save_file(tensors, out / "model.safetensors")
    (out / "config.json").write_text((folder / "config.json").read_text())
    return out


@pytest.mark.parametrize("change", ["unused", "missing", "missing expert", "shape"])
def test_every_rank_is_strict_about_the_whole_checkpoint(
    fp8: Path, tmp_path: Path, change: str
) -> None:
    tensors = load_file(fp8 / "model.safetensors")
    stem = "model.layers.0.mlp.experts.3.up_proj.weight"
    if change == "unused":
        tensors["model.layers.0.mlp.experts.4.up_proj.weight"] = tensors[stem].clone()
    elif change == "missing":
        del tensors["model.norm.weight"]
    elif change == "missing expert":
        del tensors[stem], tensors[f"{stem}_scale_inv"]
    else:
        tensors[stem] = tensors[stem][:-1].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((fp8 / "config.json").read_text())
    shapes = ModelShapes.from_folder(tmp_path)
    # Expert 3 is the second rank's.
    for rank in (0, 1):
        mine = empty(shapes, Layout(2, 2), rank, quantized=True)
        with pytest.raises(EngineInputError, match=r"is not part|no tensor fills|config.json says"):
            load_weights(tmp_path, mine, shapes.quantization)


@pytest.mark.parametrize(
    ("layout", "quantized", "changes", "words"),
    [
        (Layout(3), False, {}, "tp: num_attention_heads 8 is no multiple of 3"),
        (Layout(16), False, {}, "16 ranks; the largest that fits is --tp 8"),
        (Layout(4), False, {"num_key_value_heads": 8, "num_attention_heads": 8}, None),
        (
            Layout(8),
            False,
            {"moe_intermediate_size": 20},
            "moe_intermediate_size 20 is no multiple",
        ),
        (Layout(8, 8), False, {"num_experts": 12}, "ep: num_experts 12 is no multiple of 8"),
        (Layout(8, 8), False, {"num_experts": 12}, "--ep 4"),
        (Layout(8), False, {"moe_intermediate_size": 20}, "--tp 4, or --ep"),
        (Layout(8), False, {}, None),
        (Layout(8, 4), False, {}, None),
        (Layout(8, 8), True, FP8_SIZES, "num_attention_heads 4 is no multiple of 8"),
        (Layout(8), True, {**FP8_SIZES, "moe_intermediate_size": 384}, "--tp"),
        (Layout(4), True, FP8_SIZES, None),
        (Layout(4), True, {**FP8_SIZES, "moe_intermediate_size": 256}, "128 of an FP8 block"),
        (Layout(4), True, {**FP8_SIZES, "moe_intermediate_size": 256}, "is --tp 2, or --ep"),
        (Layout(4, 4), True, {**FP8_SIZES, "moe_intermediate_size": 256}, None),
        (Layout(4, 4), True, {**FP8_SIZES, "head_dim": 64}, "num_attention_heads * head_dim 256"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(
    layout: Layout, quantized: bool, changes: dict[str, Any], words: str | None
) -> None:
    shapes = ModelShapes.from_config(tiny_config(**{**SIZES, **changes}))
    if words is None:
        check_layout(shapes, layout, quantized=quantized)
        return
    with pytest.raises(EngineInputError) as caught:
        check_layout(shapes, layout, quantized=quantized)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_published_models_fit_where_they_are_said_to(tmp_path: Path) -> None:
    sizes = {"35B": (256, 512, 16, 2, 16, 32, 2048), "397B": (512, 1024, 32, 2, 16, 64, 4096)}
    most = {}
    for name, (experts, width, heads, kv, keys, linear_values, hidden) in sizes.items():
        shapes = ModelShapes.from_config(
            json.loads(
                json.dumps(
                    small_config(
                        vocab_size=248_320,
                        hidden_size=hidden,
                        num_attention_heads=heads,
                        num_key_value_heads=kv,
                        head_dim=256,
                        linear_key_head_dim=128,
                        linear_value_head_dim=128,
                        linear_num_key_heads=keys,
                        linear_num_value_heads=linear_values,
                        num_experts=experts,
                        moe_intermediate_size=width,
                        shared_expert_intermediate_size=width,
                    )
                )
            )
        )
        fits = []
        for tp in (1, 2, 4, 8, 16):
            try:
                check_layout(shapes, Layout(tp), quantized=True)
                fits.append(tp)
            except EngineInputError:
                continue
        most[name] = max(fits)
        check_layout(shapes, Layout(8, 8), quantized=True)
    # Blocks of 128: 512 / 4 and 1024 / 8.
    assert most == {"35B": 4, "397B": 8}


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((4, 3, 1), "ep: 3 does not divide tp 4; give 1 or 2 or 4"),
        ((2, 8, 2), "give 1 or 2 or 4"),
        ((0, 1, 1), "tp: 0"),
    ],
)
def test_sizes_that_do_not_go_together(sizes: tuple[int, int, int], words: str) -> None:
    with pytest.raises(EngineInputError) as caught:
        Layout(*sizes)
    assert words in str(caught.value)
