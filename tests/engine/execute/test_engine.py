import random

import pytest
import torch

from upcurve.engine.build import build_engine
from upcurve.engine.errors import EngineInputError
from upcurve.engine.execute.options import EngineOptions
from upcurve.engine.schedule.request import Request, SamplingParameters

GREEDY = SamplingParameters(max_tokens=24, temperature=0, ignore_eos=True)


def engine_of(folder, **options):
    defaults = {"threads": 1, "max_running_requests": 4, "max_batch_tokens": 16}
    return build_engine(folder, EngineOptions(**{**defaults, **options}))


def prompts(*lengths, seed=0):
    draw = random.Random(seed)
    return [[draw.randrange(3, 400) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize("off", ["", "all"])
def test_greedy_equals_transformers_in_a_mixed_batch_with_chunked_prefill(tiny, oracle, off):
    engine = engine_of(tiny, off=off)
    batch = prompts(5, 33, 1, 70, 17, 64, 2, 40)
    outputs = engine.generate(batch, GREEDY)
    for prompt, output in zip(batch, outputs, strict=True):
        with torch.inference_mode():
            expected = oracle.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=24,
                do_sample=False,
                pad_token_id=0,
            )
        assert output == expected[0, len(prompt) :].tolist()
    engine.memory.check()
    assert engine.memory.usage().pages == engine.memory.usage().slots == 0


def test_requests_join_and_leave_between_steps_without_changing_each_other(tiny):
    batch = prompts(9, 30, 4, 21, seed=1)
    alone = [engine_of(tiny).generate([prompt], GREEDY)[0] for prompt in batch]
    engine = engine_of(tiny)
    requests = [Request(str(i), prompt, GREEDY) for i, prompt in enumerate(batch)]
    for request in requests:
        engine.add(request)
        engine.step()
        engine.step()
    while engine.has_work:
        engine.step()
        engine.memory.check()
    assert [request.output for request in requests] == alone


def test_abort_in_every_phase_frees_the_memory_and_gives_one_terminal_event(tiny):
    for steps in range(12):
        engine = engine_of(tiny, max_running_requests=1)
        first, second = (Request(name, prompts(40)[0], GREEDY) for name in ("first", "second"))
        engine.add(first)
        engine.add(second)
        for _ in range(steps):
            engine.step()
        events = engine.abort("first") + engine.abort("second") + engine.abort("first")
        assert [(event.request_id, event.finish) for event in events] == [
            ("first", "aborted"),
            ("second", "aborted"),
        ]
        assert engine.step() == []
        assert not engine.has_work
        engine.memory.check()
        assert engine.memory.usage().slots == 0


def test_a_failed_step_fails_its_requests_and_the_engine_goes_on(tiny, monkeypatch):
    engine = engine_of(tiny)
    expected = engine.generate(prompts(6), GREEDY)
    engine.add(Request("doomed", prompts(6)[0], GREEDY))

    def broken(batch, caches):
        raise RuntimeError("device lost")

    with monkeypatch.context() as patch:
        patch.setattr(engine.device.model, "forward", broken)
        (event,) = engine.step()
    assert (event.finish, event.error) == ("failed", "RuntimeError: device lost")
    assert engine.failed_steps_in_a_row == 1
    engine.memory.check()
    assert engine.generate(prompts(6), GREEDY) == expected
    assert engine.failed_steps_in_a_row == 0


def test_logits_that_are_not_finite_fail_their_request_alone(tiny, monkeypatch):
    engine = engine_of(tiny)
    expected = engine.generate(prompts(6, 9), GREEDY)[1]
    bad, good = (Request(str(i), each, GREEDY) for i, each in enumerate(prompts(6, 9)))
    engine.add(bad)
    engine.add(good)
    forward = engine.device.model.forward

    def poisoned(batch, caches):
        logits = forward(batch, caches).clone()
        logits[0] = float("nan")
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(engine.device.model, "forward", poisoned)
        events = engine.step()
    assert [(event.request_id, event.finish) for event in events] == [("0", "failed"), ("1", None)]
    assert "not finite" in events[0].error
    assert bad.output == []
    while engine.has_work:
        engine.step()
    assert good.output == expected
    engine.memory.check()


def test_what_a_step_told_before_it_failed_is_not_lost(tiny, monkeypatch):
    engine = engine_of(tiny)
    one = SamplingParameters(max_tokens=1, temperature=0, ignore_eos=True)
    for name in ("first", "second"):
        engine.add(Request(name, prompts(6)[0], one))
    finish = engine._finish

    def broken(request, token):
        if request.id == "second":
            raise RuntimeError("no such luck")
        return finish(request, token)

    monkeypatch.setattr(engine, "_finish", broken)
    events = engine.step()
    assert [(event.request_id, event.finish) for event in events] == [
        ("first", "length"),
        ("second", "failed"),
    ]
    assert not engine.has_work
    engine.memory.check()


@pytest.mark.parametrize("bad", [[5] * 300, [400], [-1]])
def test_refused_prompts_leave_nothing_behind(tiny, bad):
    engine = engine_of(tiny)
    expected = engine.generate([[1, 2]], GREEDY)
    with pytest.raises(EngineInputError, match="prompt: "):
        engine.generate([[1, 2], bad], GREEDY)
    assert not engine.has_work
    assert engine.generate([[1, 2]], GREEDY) == expected


def test_end_of_sequence_stops_unless_ignored_and_stop_tokens_stop(tiny):
    engine = engine_of(tiny)
    (output,) = engine.generate(prompts(8), GREEDY)
    stop = output[5]
    first = output.index(stop)
    stopping = SamplingParameters(24, temperature=0, ignore_eos=True, stop_token_ids=(stop,))
    assert engine.generate(prompts(8), stopping) == [output[: first + 1]]
    engine.end_of_sequence_ids = (stop,)
    ending = SamplingParameters(24, temperature=0)
    assert engine.generate(prompts(8), ending) == [output[: first + 1]]
    assert engine.generate(prompts(8), GREEDY) == [output]


def test_logprobs_are_those_of_a_softmax_over_the_raw_logits(tiny, oracle):
    engine = engine_of(tiny)
    prompt = prompts(12)[0]
    engine.add(Request("a", prompt, SamplingParameters(4, temperature=0, logprobs=3)))
    events = []
    while engine.has_work:
        events += engine.step()
    tokens = [event.token for event in events]
    with torch.inference_mode():
        logits = oracle(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    expected = torch.log_softmax(logits.double(), -1)
    for event, row in zip(events, expected, strict=True):
        best = torch.topk(row, 3)
        assert event.logprobs.chosen == pytest.approx(row[event.token].item(), abs=1e-4)
        assert [token for token, _ in event.logprobs.top] == best.indices.tolist()
        assert [value for _, value in event.logprobs.top] == pytest.approx(
            best.values.tolist(), abs=1e-4
        )


def test_what_cannot_be_admitted_is_refused_with_both_numbers(tiny):
    engine = engine_of(tiny)
    with pytest.raises(EngineInputError, match=r"250 tokens and max_tokens 24 are more .* 256"):
        engine.add(Request("long", [5] * 250, GREEDY))
    with pytest.raises(EngineInputError, match="one token or more"):
        engine.add(Request("empty", [], GREEDY))
    engine.add(Request("twice", [5], GREEDY))
    with pytest.raises(EngineInputError, match="twice is running"):
        engine.add(Request("twice", [5], GREEDY))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_length": 512}, "context-length: 512 is over the model's 256"),
        ({"off": "fused_nonsense"}, "off: 'fused_nonsense' is not a switch"),
        ({"max_batch_tokens": 2}, "max-batch-tokens: 2 is less than"),
    ],
)
def test_unusable_options_are_named(tiny, options, message):
    with pytest.raises(EngineInputError, match=message):
        engine_of(tiny, **options)


def ahead(engine):
    """Let it launch steps before it has seen the last one's tokens, as on a GPU."""
    engine._overlap = True
    return engine


def test_preempted_and_launched_ahead_the_tokens_are_the_same(tiny):
    batch = prompts(9, 40, 4, 21, 33, 2, seed=2)
    expected = engine_of(tiny).generate(batch, GREEDY)
    # Two requests at full length, of six.
    engine = ahead(engine_of(tiny, context_length=64, max_kv_tokens=112, check_memory=True))
    assert engine.generate(batch, GREEDY) == expected
    assert engine.preemptions > 0


def test_what_ends_while_its_next_step_is_on_its_way_ends_once(tiny):
    batch = prompts(8, 11, 30, seed=4)
    expected = engine_of(tiny).generate(batch, GREEDY)
    stop = expected[0][5]
    sampling = SamplingParameters(24, temperature=0, ignore_eos=True, stop_token_ids=(stop,))
    engine = ahead(engine_of(tiny, check_memory=True))
    requests = [Request(str(index), prompt, sampling) for index, prompt in enumerate(batch)]
    for request in requests:
        engine.add(request)
    events = []
    while engine.has_work:
        events += engine.step()
    for request, tokens in zip(requests, expected, strict=True):
        cut = tokens[: tokens.index(stop) + 1] if stop in tokens else tokens
        mine = [event for event in events if event.request_id == request.id]
        assert request.output == [event.token for event in mine] == cut
        assert [bool(event.finish) for event in mine] == [False] * (len(cut) - 1) + [True]
    assert engine.memory.usage().slots == 0


@pytest.mark.parametrize("changes", [{"kv_cache_dtype": "fp8"}, {"state_dtype": "bf16"}])
def test_narrow_caches_change_little_and_sequences_stay_apart(tiny, changes):
    batch = prompts(9, 30, 21, seed=1)
    alone = [engine_of(tiny, **changes).generate([prompt], GREEDY)[0] for prompt in batch]
    engine = engine_of(tiny, **changes)
    assert engine.generate(batch, GREEDY) == alone
    wide, narrow = (
        [first_logprobs(engine_of(tiny, **each), prompt) for prompt in batch]
        for each in ({}, changes)
    )
    assert narrow != wide
    assert max(abs(a - b) for a, b in zip(wide, narrow, strict=True)) < 0.1


def first_logprobs(engine, prompt):
    """Return the log probability of the first token after a prompt that came in chunks."""
    engine.add(Request("a", prompt, SamplingParameters(1, temperature=0, logprobs=0)))
    events = []
    while engine.has_work:
        events += engine.step()
    return events[0].logprobs.chosen


def test_a_page_table_that_is_not_its_owners_is_found(tiny):
    engine = engine_of(tiny, check_memory=True)
    engine.add(Request("a", prompts(20)[0], GREEDY))
    engine.step()
    engine.device.caches.page_tables[0, 0] += 1
    with pytest.raises(RuntimeError, match="slot 0 is not its owner's"):
        engine.step()
