"""The own server under an evaluation: answers of a random model, as any client gets them."""

from __future__ import annotations

import asyncio

import pytest

from tests.accuracy.examples import items
from tests.engine.serve.running import MODEL, Running, write_tiny
from upcurve.accuracy.answers import AnswersFile, read_answers
from upcurve.accuracy.asking import Asker
from upcurve.accuracy.evaluation import Setting, evaluate
from upcurve.accuracy.scoring import extract
from upcurve.accuracy.task import Task
from upcurve.errors import InputError
from upcurve.load.target import Target

GIVEN = tuple(items(5))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    with Running(folder) as running:
        yield running


@pytest.mark.parametrize("others_first", [False, True])
def test_more_tokens_than_the_server_gives_are_refused_in_one_line(
    served, tmp_path, monkeypatch, others_first
):
    ask_first = Asker.ask_first

    async def late(*arguments):
        await asyncio.sleep(0.3)
        return await ask_first(*arguments)

    if others_first:
        monkeypatch.setattr(Asker, "ask_first", late)
    task = Task("gsm8k", "3", GIVEN, GIVEN, True, 0, max_tokens=10**6)
    with (
        AnswersFile.begin(tmp_path, "x", {}) as file,
        pytest.raises(InputError, match="more than the context length of 256") as refused,
    ):
        evaluate(Target(served.url, MODEL), task, Setting(3), file)
    assert refused.value.field == "max-tokens"
    assert refused.value.problem.startswith("the server refuses 1,000,000 tokens out after a ques")
    assert refused.value.mend == "give fewer, or shorter prompts"
    assert read_answers(file.path) == {}


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_answers_are_those_that_any_client_gets(served, tmp_path, endpoint):
    task = Task("gsm8k", "3", GIVEN, GIVEN, True, 1, max_tokens=12)
    with AnswersFile.begin(tmp_path, "x", {}) as file:
        found = evaluate(Target(served.url, MODEL, endpoint=endpoint), task, Setting(3), file)
    kept = read_answers(file.path)
    assert (found.n, found.failed) == (5, 0)
    client = served.client()
    for item, prompt in zip(GIVEN, task.prompts(), strict=True):
        asked = {"model": MODEL, "max_tokens": 12, "temperature": 0, "stop": list(task.stop)}
        if endpoint == "chat":
            answer = client.chat.completions.create(messages=prompt.messages, **asked)
            text = answer.choices[0].message.content
        else:
            answer = client.completions.create(prompt=prompt.text, **asked)
            text = answer.choices[0].text
        assert kept[item.id]["answer"] == text
        assert kept[item.id]["strict"]["extracted"] == extract(text, "strict")
        assert kept[item.id]["prompt_tokens"] == answer.usage.prompt_tokens
        assert kept[item.id]["finish_reason"] == answer.choices[0].finish_reason
