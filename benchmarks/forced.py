"""An engine that is told its tokens, and whose logits are kept: what other benchmarks compare."""

import torch

from upcurve.engine.build import engine_of
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.model.checkpoint import small_config
from upcurve.engine.schedule.request import Request, SamplingParameters

SMALL = {"max_position_embeddings": 4096}


class ForcedEngine:
    """The real engine around a model; only the tokens that it draws are given.

    Everything before the draw is as it is served: scheduling, pages, chunks, graphs.
    """

    def __init__(self, model, device, *, step_tokens, requests, context, **options):
        self.engine = engine_of(
            model,
            EngineOptions(
                max_batch_tokens=max(step_tokens, requests),
                max_running_requests=requests,
                context_length=context,
                memory_share=0.98,
                **options,
            ),
            torch.device(device),
        )
        self._forced = {}
        self.logits = {}
        """By request: float32 [vocab] after its prompt, and after each forced token."""
        self.engine.device._sampler.sample = self._sample

    def _sample(self, logits, drawing):
        tokens = []
        for row, each in enumerate(drawing):
            name = each.request.id
            rows = self.logits.setdefault(name, [])
            forced = self._forced[name]
            tokens.append(forced[len(rows)] if forced else int(logits[row].argmax()))
            rows.append(logits[row].float().clone())
        return torch.tensor(tokens, device=logits.device)

    def run(self, sequences, output):
        """Compute requests together.

        Args:
            sequences: by name: a prompt, and the tokens to force after it, or none: then the most
                likely ones are drawn.
            output: tokens of each request.

        Returns:
            By name: float32 [output, vocab], and the tokens.
        """
        self.logits = {}
        sampling = SamplingParameters(output, temperature=0, ignore_eos=True)
        requests = {}
        for name, (prompt, forced) in sequences.items():
            self._forced[name] = list(forced) if forced is not None else None
            requests[name] = Request(name, list(prompt), sampling)
            self.engine.add(requests[name])
        while self.engine.has_work:
            for event in self.engine.step():
                if event.finish == "failed":
                    raise SystemExit(event.error)
        return {
            name: (torch.stack(self.logits[name]), request.output)
            for name, request in requests.items()
        }


def random_ids(count, vocabulary, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocabulary, (count,), generator=generator).tolist()


def shapes_config(model, layers, full_size):
    """Return a config.json of the full layer shapes, or small ones, with fewer layers."""
    config = small_config(**(full_size if model == "35b" else SMALL))
    config["num_hidden_layers"] = layers
    return config
