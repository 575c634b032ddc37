"""What is timed on one GPU: decode steps and prefills, of the engine and of transformers."""

import statistics
import time

import torch

from upcurve.engine.build import engine_of
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.schedule.request import Request, SamplingParameters

PROMPT_TOKENS = 8192
"""Of prompts in a step before decode steps are timed."""
CHUNK = 16_384
"""Tokens of one forward pass in which transformers prefills: more do not fit beside the rest."""


class Decoding:
    """The engine with some requests in the middle of their output."""

    def __init__(self, model, arguments, batch):
        # The first decodes while the last is prefilled.
        output = (arguments.rounds + 2) * (arguments.steps + 2) + 40
        output += batch * -(-arguments.context // PROMPT_TOKENS)
        self.engine = new_engine(
            *(model, arguments),
            context=arguments.context + output,
            requests=batch,
            tokens=PROMPT_TOKENS + batch,
        )
        self._batch = batch
        self._steps = arguments.steps
        self._spans, self._host = [], []
        self._watch()
        generator = torch.Generator().manual_seed(batch)
        sampling = SamplingParameters(output, temperature=0, ignore_eos=True)
        size = (batch, arguments.context)
        for index, row in enumerate(
            torch.randint(3, model.shapes.vocab_size, size, generator=generator).tolist()
        ):
            self.engine.add(Request(str(index), row, sampling))
        for _ in range(3):
            while len(checked(self.engine.step())) < batch:
                pass

    def _watch(self):
        """Note when each step begins and ends on the device, and how long the host waits."""
        device, events = self.engine.device, torch.cuda.is_available()
        launch = device.launch

        def watched(step):
            span = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if events else []
            if span:
                span[0].record()
            flight = launch(step)
            if span:
                span[1].record()
            self._spans.append(span)
            return Waited(flight, self._host)

        device.launch = watched

    def turn(self):
        """Take the steps of a turn; return milliseconds of a step, idle, and on the host."""
        self._spans.clear()
        self._host.clear()
        started = time.perf_counter()
        for _ in range(self._steps):
            tokens = len(checked(self.engine.step()))
            if tokens != self._batch:
                raise SystemExit(f"{tokens} tokens of a step over {self._batch} requests")
        took = 1000 * (time.perf_counter() - started) / self._steps
        synchronize()
        pairs = list(zip(self._spans, self._spans[1:], strict=False))
        idle = [before[1].elapsed_time(after[0]) for before, after in pairs if before]
        host = took - 1000 * sum(self._host) / self._steps
        return took, statistics.median(idle) if idle else 0.0, host


class Waited:
    """A flight whose waiting is timed."""

    def __init__(self, flight, seconds):
        self._flight = flight
        self._seconds = seconds

    def wait(self):
        """Wait for the step."""
        started = time.perf_counter()
        try:
            return self._flight.wait()
        finally:
            self._seconds.append(time.perf_counter() - started)


class TheirDecoding:
    """transformers with a cache of the same size."""

    def __init__(self, model, arguments, batch):
        self._model, self._steps = model, arguments.steps
        self._cache = None
        generator = torch.Generator().manual_seed(batch)
        size = (batch, arguments.context)
        ids = torch.randint(3, model.config.vocab_size, size, generator=generator)
        # In pieces, so that it fits. Its delta layers forget the piece before: same time, other
        # values, which nobody looks at.
        for piece in ids.to(arguments.device).split(max(1, CHUNK // batch), dim=1):
            self._forward(piece)
        self._token = ids[:, -1:].to(arguments.device)

    @torch.inference_mode()
    def _forward(self, ids):
        out = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = out.past_key_values
        return out.logits.argmax(-1)

    def turn(self):
        """Take some steps; return milliseconds of a step."""
        steps = max(3, self._steps // 6)
        synchronize()
        started = time.perf_counter()
        for _ in range(steps):
            self._token = self._forward(self._token)
            self._token.tolist()
        return 1000 * (time.perf_counter() - started) / steps, None, None


def our_prefill(model, arguments, tokens):
    engine = new_engine(
        model, arguments, context=arguments.prefill + 1, requests=1, tokens=tokens, prepare=False
    )
    ids = torch.randint(
        3, model.shapes.vocab_size, (arguments.prefill,), generator=torch.Generator().manual_seed(0)
    ).tolist()
    waited = []
    launch = engine.device.launch
    engine.device.launch = lambda step: Waited(launch(step), waited)

    def turn():
        waited.clear()
        engine.add(Request("prefill", ids, SamplingParameters(1, temperature=0, ignore_eos=True)))
        synchronize()
        started = time.perf_counter()
        while engine.has_work:
            checked(engine.step())
        took = time.perf_counter() - started
        return took, 1000 * (took - sum(waited))

    return turn


def their_prefill(model, length, device):
    ids = torch.randint(3, model.config.vocab_size, (1, length)).to(device)

    @torch.inference_mode()
    def turn():
        synchronize()
        started = time.perf_counter()
        model(ids, use_cache=True, logits_to_keep=1).logits.argmax(-1).tolist()
        return time.perf_counter() - started, None

    return turn


def new_engine(model, arguments, *, context, requests, tokens, prepare=True):
    options = EngineOptions(
        context_length=context,
        max_running_requests=requests,
        max_batch_tokens=tokens,
        memory_share=0.98,
    )
    return engine_of(model, options, torch.device(arguments.device), prepare=prepare)


def checked(events):
    for event in events:
        if event.finish == "failed":
            raise SystemExit(event.error)
    return events


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()
