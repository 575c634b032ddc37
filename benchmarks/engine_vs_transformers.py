"""The engine against transformers' generate() on the same device, model and prompts, interleaved.

    python benchmarks/engine_vs_transformers.py                  a small model on the CPU, float32
    python benchmarks/engine_vs_transformers.py --device cuda    the same on a GPU
    python benchmarks/engine_vs_transformers.py --device cuda --model 35b --dtype bf16

Both run in one process on the very same tensors, which are random; rounds alternate. The table
gives output tokens per second (prefill included) as median [lowest, highest] over the rounds, and
the ratio round by round. Greedy tokens are compared first: a speed-up of wrong tokens is none.

In bf16 rounding decides between near tokens, so greedy ones part: `full_shape_logits.py` compares
the logits.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from upcurve.engine.build import build_engine
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.model.weight_map import weight_map
from upcurve.engine.schedule.request import SamplingParameters

MODELS = Path(__file__).parent.parent / "models"
FULL_SIZE = json.loads((MODELS / "qwen35-35b-a3b" / "config.json").read_text())
"""transformers' default configuration: the shapes of Qwen3.5-35B-A3B."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--model", default="small", choices=["small", "35b"])
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--output", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--off", default="", help="switches to turn off")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    changes = dict(FULL_SIZE) if arguments.model == "35b" else {}
    if arguments.layers:
        changes["num_hidden_layers"] = arguments.layers
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), small_config(**changes), arguments)


def run(folder, config, arguments):
    (folder / "config.json").write_text(json.dumps(config))
    engine = build_engine(
        folder,
        EngineOptions(
            device=arguments.device,
            dtype=arguments.dtype,
            load_format="dummy",
            off=arguments.off,
            context_length=arguments.prompt + arguments.output,
            threads=1,
            seed=1,
        ),
    )
    oracle = transformers_model(folder, engine.device.model, arguments.device)
    torch.set_num_threads(1)
    vocabulary = config["vocab_size"]
    sampling = SamplingParameters(arguments.output, temperature=0, ignore_eos=True)
    print(f"{torch.get_num_threads()} CPU thread, torch {torch.__version__}, {arguments}")
    print("batch  engine tok/s            transformers tok/s      ratio                same tokens")
    for batch in map(int, arguments.batch.split(",")):
        generator = torch.Generator().manual_seed(batch)
        prompts = torch.randint(3, vocabulary, (batch, arguments.prompt), generator=generator)
        rows = prompts.tolist()

        def ours(rows=rows):
            return engine.generate(rows, sampling)

        def theirs(prompts=prompts):
            inputs = prompts.to(arguments.device)
            output = oracle.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=arguments.output,
                do_sample=False,
                pad_token_id=0,
            )
            return output[:, arguments.prompt :].tolist()

        same = sum(a == b for a, b in zip(ours(), theirs(), strict=True))
        rates = {ours: [], theirs: []}
        for index in range(arguments.rounds):
            for function in (ours, theirs) if index % 2 else (theirs, ours):
                started = time.perf_counter()
                function()
                seconds = time.perf_counter() - started
                rates[function].append(batch * arguments.output / seconds)
        ratios = [a / b for a, b in zip(rates[ours], rates[theirs], strict=True)]
        print(
            f"{batch:5}  {spread(rates[ours], '.0f'):22}  {spread(rates[theirs], '.0f'):22}  "
            f"{spread(ratios, '.2f'):19}  {same} of {batch}"
        )


def transformers_model(folder, ours, device, dtype=None):
    """Build transformers' model around the engine's own tensors: no second copy has to fit.

    In another `dtype` than the engine's it gets copies.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = dtype or ours.dtype
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.requires_grad_(False)
    tensors = {
        ("" if name.startswith("lm_head") else "model.") + name: as_held(tensor, dtype)
        for name, tensor in weight_map(ours.weights).items()
    }
    model.load_state_dict(tensors, assign=True)
    # Its table of frequencies is in no checkpoint.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    model.generation_config.eos_token_id = None
    return model.eval()


def as_held(tensor, dtype):
    return tensor.contiguous() if tensor.dtype == torch.float32 else tensor.to(dtype).contiguous()


def spread(values, form):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


if __name__ == "__main__":
    main()
