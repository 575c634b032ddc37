"""Prompts as text of an exact number of tokens, without running a tokenizer while measuring."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy
import numpy.typing
from tokenizers import Tokenizer

from upcurve.errors import InputError
from upcurve.load.workload.lengths import Lengths
from upcurve.load.workload.prompt import Phase, Prompt
from upcurve.load.workload.synthetic import SharedPrefix, SyntheticWorkload

_WORDS = 2048
_FEWEST = 16
_WORD = re.compile(r"[a-z]{2,7}")
"""With a space before it, a word fits into eight bytes."""
_SPANNING = re.compile(r" ?([a-z]+) ")
"""A token that reaches beyond the end of a word."""
_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class TextWorkload:
    """Prompts of words that the tokenizer keeps whole, one token each, all prompts distinct.

    The server's own count shows what a begin-of-sequence token or a chat template adds.
    """

    tokens: SyntheticWorkload
    """The same prompts, as places in `words`."""
    words: tuple[str, ...]
    lead: str
    """What stands before the first word: a space where the tokenizer adds none itself."""
    tokenizer: str
    """Name of the file's folder, and the SHA-256 of the file."""
    _packed: numpy.typing.NDArray[numpy.uint64] = field(init=False, repr=False, compare=False)
    """Each word after a space, as eight bytes: thousands are gathered in one step."""

    def __post_init__(self) -> None:
        """Pack the words."""
        packed = numpy.array([f" {word}".encode() for word in self.words], dtype="S8")
        object.__setattr__(self, "_packed", packed.view(numpy.uint64))

    @classmethod
    def load(
        cls,
        path: Path,
        input_length: Lengths,
        output_length: Lengths,
        *,
        seed: int = 0,
        prefix: SharedPrefix | None = None,
    ) -> Self:
        """Find the words of a tokenizer and check that their counts add up.

        Args:
            path: tokenizer.json, or the folder that holds it.
            input_length: of prompts, in tokens.
            output_length: of answers, in tokens.
            seed: of the prompts.
            prefix: beginnings that prompts share.

        Raises:
            InputError: there is no tokenizer, or it keeps too few words whole.
        """
        file, tokenizer = load_tokenizer(path)
        candidates = _candidates(tokenizer)
        # Chat templates may trim a prompt, so none begins with a space where words allow that.
        leads = {lead: _whole_words(tokenizer, candidates, lead) for lead in ("", " ")}
        lead, words = max(leads.items(), key=lambda pair: len(pair[1]))
        if len(words) >= _FEWEST:
            tokens = SyntheticWorkload(input_length, output_length, seed, (0, len(words)), prefix)
            found = cls(tokens, words, lead, name_of(file))
            samples = [found.prompt("probe", index) for index in range(_SAMPLES)]
            if all(_count(tokenizer, str(each.content)) == each.input_tokens for each in samples):
                return found
        problem = f"{file} does not keep words whole, so that lengths cannot be exact"
        raise InputError("tokenizer", problem, "leave --tokenizer out: token ids need none")

    @property
    def isl(self) -> int:
        """Nominal input length in tokens."""
        return self.tokens.isl

    @property
    def osl(self) -> int:
        """Nominal output length in tokens."""
        return self.tokens.osl

    @property
    def exact_output(self) -> bool:
        """Answers have the length that is asked for."""
        return True

    @property
    def shared_prefix(self) -> bool:
        """Whether prompts share beginnings on purpose."""
        return self.tokens.shared_prefix

    def prompt(self, phase: Phase, index: int) -> Prompt:
        """Return a prompt of text."""
        prompt = self.tokens.prompt(phase, index)
        assert isinstance(prompt.content, numpy.ndarray), "synthetic prompts are token ids"
        text = self._packed.take(prompt.content).tobytes().translate(None, b"\0").decode()
        return Prompt(text if self.lead else text[1:], prompt.input_tokens, prompt.output_tokens)

    def require(self, requests: int) -> None:
        """Check that `requests` prompts of one phase can all be distinct.

        Raises:
            InputError: there are not so many.
        """
        self.tokens.require(requests)

    def content_hash(self) -> str:
        """Return the SHA-256, in hex, of all that the prompts follow from."""
        facts = (self.tokens.content_hash(), self.words, self.lead)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return what a record says about it."""
        facts = self.tokens.facts() | {"prompts": "random words, all distinct"}
        return facts | {"tokenizer": self.tokenizer, "vocabulary": len(self.words)}

    def salted(self, salt: str) -> Self:
        """Return the same workload with prompts of its own."""
        return replace(self, tokens=self.tokens.salted(salt))


def load_tokenizer(path: Path) -> tuple[Path, Tokenizer]:
    """Return the file of a tokenizer, and the tokenizer.

    Raises:
        InputError: there is none.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    mend = "name a tokenizer.json or the folder that holds it"
    if not file.is_file():
        raise InputError("tokenizer", f"{file} is no file", mend)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower one
        raise InputError("tokenizer", f"{file}: {error}", mend) from None
    # Files may ask for either, and counts would be those of a model's window.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return file, tokenizer


def name_of(file: Path) -> str:
    """Return what tells a tokenizer: the name of its folder, and the SHA-256 of its file."""
    return f"{file.parent.name}/{hashlib.sha256(file.read_bytes()).hexdigest()}"


def _candidates(tokenizer: Tokenizer) -> list[str]:
    """Return words of lower-case letters that no token can join to the next, by token id.

    A token that spans the end of a word holds that end before a space.
    Where no token does, each word is cut as it is alone, and counts add up.
    """
    by_id = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    decoded = [tokenizer.decode([number]) for number, _ in by_id]
    ends = tuple({found[1] for each in decoded if (found := _SPANNING.match(each))})
    words = dict.fromkeys(each.strip() for each in decoded)
    return [word for word in words if _WORD.fullmatch(word) and not word.endswith(ends)]


def _whole_words(tokenizer: Tokenizer, candidates: list[str], lead: str) -> tuple[str, ...]:
    """Return words that are one token each, at the beginning and after another word."""
    found: list[str] = []
    for word in candidates:
        alone = _count(tokenizer, lead + word)
        if alone == 1 and _count(tokenizer, f"{lead}{word} {word}") == 2:
            found.append(word)
        if len(found) == _WORDS:
            break
    return tuple(found)


def _count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
