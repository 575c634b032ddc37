"""Whole evaluations of the small engine over HTTP: known answers, known scores."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tests.accuracy.examples import answers, ask, engine, items, write_answers
from upcurve.accuracy.answers import AnswersFile, read_answers
from upcurve.accuracy.evaluation import Setting, evaluate
from upcurve.accuracy.task import Task
from upcurve.errors import InputError
from upcurve.load.target import Target

GIVEN = items(40)
WRONG = {3, 17, 18, 39}


def task(count=40, shots=0, **more):
    return Task("gsm8k", "3", tuple(GIVEN[:count]), tuple(GIVEN), True, shots, **more)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return the URL of an engine that has four answers wrong."""
    file = write_answers(tmp_path_factory.mktemp("engine") / "a.json", answers(GIVEN, WRONG))
    with engine("--answers", file, "--token-ms", 5) as url:
        yield url


def run(url, folder, asked=None, *, endpoint="completions", watch=None, **setting):
    target = Target(url, "small", endpoint=endpoint)
    how = Setting(**({"concurrency": 4} | setting))
    with AnswersFile.begin(folder, "x", {}) as file:
        return evaluate(target, asked or task(), how, file, watch), read_answers(file.path)


def test_the_score_is_what_the_engine_has_right(server, tmp_path):
    found, kept = run(server, tmp_path)
    assert (found.n, found.failed, found.truncated) == (40, 0, 0)
    assert {key for key, right in found.right["strict"].items() if not right} == {
        str(place) for place in WRONG
    }
    assert found.score("strict") == found.score("flexible") == 36 / 40
    assert found.interval("strict")[0] < 0.9 < found.interval("strict")[1]
    assert kept["3"]["strict"] == {"extracted": "61", "right": False}
    assert kept["4"]["strict"] == {"extracted": "8", "right": True}
    assert (kept["4"]["answer"], kept["4"]["target"]) == (" It is 8.\n#### 8", "8")
    assert kept["4"]["finish_reason"] == "stop"
    assert kept["4"]["prompt_tokens"] == len("Question: What is 4 + 4?\nAnswer:") // 3


@pytest.mark.parametrize("concurrency", [1, 7])
def test_so_many_questions_are_in_flight(tmp_path, concurrency):
    file = write_answers(tmp_path / "a.json", answers(GIVEN, WRONG))
    with engine("--answers", file, "--token-ms", 20, "--meet", concurrency) as url:
        run(url, tmp_path, concurrency=concurrency)
        most = json.loads(ask(int(url.rpartition(":")[2]), "/peak"))["most"]
    assert most == concurrency


def test_a_chat_takes_turns(server, tmp_path):
    found, kept = run(server, tmp_path, task(shots=2), endpoint="chat")
    assert found.count("strict") == 36
    assert kept["0"]["prompt_tokens"] > 30


def test_prompts_are_brought_up_to_the_context_of_a_point(server, tmp_path):
    found, _ = run(server, tmp_path, context=300)
    mean, most = found.prompt_tokens
    assert 280 <= mean <= most <= 303
    assert found.count("strict") == 36
    longer, _ = run(server, tmp_path, task(shots=8), context=30)
    assert longer.prompt_tokens[0] > 100  # the task's own examples stay


def test_a_limit_of_output_tokens_is_told(server, tmp_path):
    found, _ = run(server, tmp_path, task(max_tokens=2))
    assert (found.truncated, found.count("strict")) == (40, 0)


def test_who_watches_sees_it_grow_and_can_end_it(server, tmp_path):
    seen = []
    run(server, tmp_path, watch=seen.append, concurrency=1)
    assert (seen[-1].ended, seen[-1].of) == (40, 40)
    assert [each.ended for each in seen] == sorted(each.ended for each in seen)
    assert seen[-1].left_s == 0

    class StopError(Exception):
        pass

    def stop(_):
        raise StopError

    # It would wait for its fourth answer until the timeout.
    folder = tmp_path / "stopped"
    file = write_answers(tmp_path / "a.json", answers(GIVEN, WRONG))
    with engine("--answers", file, "--hang-at", 5) as url, pytest.raises(StopError):
        run(url, folder, watch=stop, concurrency=1)
    (kept,) = folder.iterdir()
    assert len(read_answers(kept)) <= 3


def test_what_has_an_answer_is_not_asked_again(server, tmp_path):
    target = Target(server, "small")
    with AnswersFile.begin(tmp_path, "x", {}) as file:
        file.add({"id": "3", "answer": "#### 6"})
        file.add({"id": "4", "answer": None, "failure": "timeout"})
        found = evaluate(target, task(), Setting(4), file)
    assert found.count("strict") == 37  # the engine would have had 3 wrong
    assert found.failed == 0
    lines = file.path.read_text().splitlines()
    assert len(lines) == 1 + 2 + 39
    with AnswersFile.resume(tmp_path, {}) as again:
        before = again.path.stat().st_size
        assert evaluate(Target("http://127.0.0.1:1", "x"), task(), Setting(4), again) == found
        assert again.path.stat().st_size == before


def test_an_item_without_an_answer_is_wrong_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("upcurve.accuracy.asking.PAUSES_S", (0.0, 0.0))
    file = write_answers(tmp_path / "a.json", answers(GIVEN, set()))
    # The first question is tried out once, then 6 of the 10 get their answers.
    with engine("--answers", file, "--fail-after", 8) as url:
        found, kept = run(url, tmp_path, task(10), concurrency=1)
    assert (found.n, found.failed, found.count("strict")) == (10, 4, 6)
    assert found.problem == "HTTP 500: out of pages"
    assert kept["9"]["failure"] == "http_5xx"
    assert kept["9"]["detail"] == "HTTP 500: out of pages"


def test_a_timeout_is_an_item_without_an_answer(tmp_path):
    file = write_answers(tmp_path / "a.json", answers(GIVEN, set()))
    with engine("--answers", file, "--hang-at", 4) as url:
        found, kept = run(url, tmp_path, task(3), concurrency=1, timeout_s=3)
    assert (found.failed, kept["2"]["failure"]) == (1, "timeout")
    with pytest.raises(InputError, match="no server answers"):
        run(url, tmp_path, task(3))


class Reluctant(BaseHTTPRequestHandler):
    """Refuses, then cuts, then answers each question."""

    tries: ClassVar[Counter] = Counter()

    def do_POST(self):
        question = self.rfile.read(int(self.headers["Content-Length"]))
        self.tries[question] += 1
        # What is tried out first is asked for one token, and answered at once.
        first = b'"max_tokens":1,' in question
        if not first and self.tries[question] == 1:
            self.send_response(429)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif not first and self.tries[question] == 2:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
            self.close_connection = True
        else:
            body = json.dumps({"choices": [{"text": "#### 2"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_busy_server_and_a_broken_connection_are_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("upcurve.accuracy.asking.PAUSES_S", (0.0, 0.0))
    with ThreadingHTTPServer(("127.0.0.1", 0), Reluctant) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found, _ = run(f"http://127.0.0.1:{server.server_port}", tmp_path, task(3))
        server.shutdown()
    assert (found.failed, found.count("strict"), found.prompt_tokens) == (0, 1, None)
    assert sorted(Reluctant.tries.values()) == [1, 3, 3, 3]


def test_a_server_that_is_gone_ends_the_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr("upcurve.accuracy.asking.PAUSES_S", (0.0,))
    file = write_answers(tmp_path / "a.json", answers(GIVEN, set()))
    with (
        engine("--answers", file, "--die-after", 6) as url,
        pytest.raises(InputError, match=r"no server answers at \S+ any more"),
    ):
        run(url, tmp_path, concurrency=2)
    (kept,) = (tmp_path).glob("x-*.jsonl")
    assert sum(each["answer"] is not None for each in read_answers(kept).values()) in (3, 4)


def test_what_refuses_the_first_question_is_bad_input(server, tmp_path):
    with pytest.raises(InputError) as refused:
        run(f"{server}/elsewhere", tmp_path)
    assert refused.value.field == "model"
    assert refused.value.problem.startswith("'small' is not served at")
