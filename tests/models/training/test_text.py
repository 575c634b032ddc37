from __future__ import annotations

from random import Random

from tokenizers import Tokenizer

from models.training.examine import ANSWER, chat_prompt
from models.training.text import CHAT_TEMPLATE, SPECIAL_TOKENS, document, prompt
from upcurve.accuracy.problems import held_out, training
from upcurve.engine.serve.chat import ChatTemplate


def test_every_digit_is_a_token_and_text_comes_back(tokenizer: Tokenizer) -> None:
    for problem in held_out(30, 3):
        text = f"{prompt(problem.question)} {problem.answer}"
        encoded = tokenizer.encode(text)
        assert tokenizer.decode(encoded.ids) == text
        digits = [token for token in encoded.tokens if any(c.isdigit() for c in token)]
        assert digits == [c for c in text if c.isdigit()]


def test_any_text_is_tokens(tokenizer: Tokenizer) -> None:
    for text in ("Zürich → 東京", "\x00\t 🎈", "one\r\n\r\n  two "):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_special_tokens_come_first_and_whole(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS]
    assert ids == [0, 1, 2]
    assert tokenizer.encode("".join(SPECIAL_TOKENS)).ids == ids


def test_training_chats_are_what_the_template_makes() -> None:
    question = held_out(1, 3)[0].question
    template = ChatTemplate(CHAT_TEMPLATE, {})
    assert template.render([{"role": "user", "content": question}], {}) == chat_prompt(question)
    random, stream = Random(1), training(1)
    chats = [d for d in (document(random, stream) for _ in range(40)) if "<|im" in d[0][0]]
    assert len(chats) > 5
    for segments in chats:
        for text, answers in segments:
            assert bool(ANSWER.search(text.removesuffix("<|im_end|>"))) == answers
