"""The tokenizer, and how problems are written down: as a completion and as a chat."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from upcurve.accuracy.problems import Problem, training

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, START, END)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = "Solve the problem step by step. End with #### and the answer."
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Where text may be cut: words with their space, single digits, signs, line ends."""

Segment = tuple[str, bool]
"""Text, and whether it is an answer that the model gives."""


def train_tokenizer(vocab_size: int, seed: int = 0, problems: int = 20_000) -> Tokenizer:
    """Train a byte-level byte-pair tokenizer on training problems; every digit is a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, problems), trainer)
    return tokenizer


def ends(tokenizer: Tokenizer) -> list[int]:
    """Return the tokens that end an answer, of a chat and of a completion."""
    return [tokenizer.get_vocab()[token] for token in (END, END_OF_TEXT)]


def _texts(seed: int, problems: int) -> Iterator[str]:
    random = Random(seed)  # noqa: S311
    stream = training(seed)
    for _ in range(problems // 2):
        yield "".join(text for text, _ in document(random, stream))


def prompt(question: str) -> str:
    """Return the completion prompt of a question, as lm-eval's GSM8K task writes it."""
    return f"Question: {question}\nAnswer:"


def document(random: Random, stream: Iterator[Problem]) -> list[Segment]:
    """Draw one document of one to three problems, as completion or as chat."""
    count = random.choices([1, 2, 3], [70, 18, 12])[0]
    problems = list(islice(stream, count))
    return _chat(random, problems) if random.random() < 0.5 else _completion(problems)


def _completion(problems: list[Problem]) -> list[Segment]:
    segments: list[Segment] = []
    for place, problem in enumerate(problems):
        segments.append(("\n\n" * (place > 0) + prompt(problem.question), False))
        segments.append((f" {problem.answer}", True))
    return [*segments, (END_OF_TEXT, True)]


def _chat(random: Random, problems: list[Problem]) -> list[Segment]:
    segments: list[Segment] = []
    if random.random() < 0.2:
        segments.append((f"{START}system\n{SYSTEM}{END}\n", False))
    for problem in problems:
        segments.append((f"{START}user\n{problem.question}{END}\n{START}assistant\n", False))
        segments.append((f"{problem.answer}{END}", True))
        segments.append(("\n", False))
    return [*segments[:-1], (END_OF_TEXT, False)]
