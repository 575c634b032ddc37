"""The tokenizer of a checkpoint folder: text to token ids, and the bytes of each token."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from upcurve.engine.errors import EngineInputError


class ByteTokenizer:
    """A byte-level byte-pair tokenizer, as every Qwen checkpoint has one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {
            token for token, each in tokenizer.get_added_tokens_decoder().items() if each.special
        }
        self.all_bytes = lru_cache(maxsize=None)(self._all_bytes)
        """Token id -> the bytes that it stands for: a special token's are its name."""
        self.token_bytes = lru_cache(maxsize=None)(self._token_bytes)
        """Token id -> the bytes that it adds to a text: none for a special or unknown id."""

    @classmethod
    def from_folder(cls, folder: Path) -> ByteTokenizer | None:
        """Read tokenizer.json; None where the folder has none.

        Raises:
            EngineInputError: the file is corrupt or not byte-level.
        """
        file = folder / "tokenizer.json"
        if not file.is_file():
            return None
        try:
            # The library raises bare Exception for whatever it cannot read.
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            raise EngineInputError(
                "model", f"{file.name} is corrupt: {error}", "fetch it anew"
            ) from error
        kind = (json.loads(tokenizer.to_str()).get("decoder") or {}).get("type")
        if kind != "ByteLevel":
            raise EngineInputError(
                "model", f"{file.name} decodes with {kind}", "only ByteLevel is supported"
            )
        return cls(tokenizer)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of a text; names of special tokens in it become those tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def token_name(self, token: int) -> str:
        r"""Return how log probabilities call a token: its text, or a special token's own name.

        Part of a character is written as OpenAI does, in the manner of bytes:\xe2\x82.
        """
        if token in self._special:
            return str(self._tokenizer.id_to_token(token))
        raw = self.token_bytes(token)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def _token_bytes(self, token: int) -> bytes:
        return b"" if token in self._special else self._all_bytes(token)

    def _all_bytes(self, token: int) -> bytes:
        text = self._tokenizer.id_to_token(token)
        if text is None:
            return b""
        try:
            return bytes(_BYTES[character] for character in text)
        except KeyError:
            # An added token that is written as it is, with a space in it for example.
            return text.encode("utf-8")


def _byte_alphabet() -> dict[str, int]:
    """Return the character of each byte in a byte-level vocabulary, inverted.

    GPT-2's table (encoder.py, bytes_to_unicode): printable Latin-1 stands for itself, the other
    bytes are shifted to U+0100 and up, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return table


_BYTES = _byte_alphabet()
