"""From a checked request to token ids that fit: tokenizer, chat template, context length."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from upcurve.engine.serve.chat import ChatTemplate
from upcurve.engine.serve.errors import ApiError
from upcurve.engine.serve.messages import Capacity
from upcurve.engine.serve.protocol import ChatRequest, CompletionRequest
from upcurve.engine.serve.tokenizer import ByteTokenizer

COMPLETION_TOKENS = 16
"""max_tokens of /v1/completions where it is not given, as OpenAI has it."""


class Intake:
    """Turns prompts and messages into token ids, and refuses what the engine cannot hold."""

    def __init__(
        self, capacity: Capacity, tokenizer: ByteTokenizer | None, template: ChatTemplate | None
    ) -> None:
        self._capacity = capacity
        self.tokenizer = tokenizer
        self._template = template

    async def completion(self, body: CompletionRequest) -> tuple[list[list[int]], int]:
        """Return the prompts as token ids, and max_tokens.

        Raises:
            ApiError: 400; a prompt does not fit, or is a text without a tokenizer.
        """
        if body.stop:
            self._need_tokenizer("stop", "use stop_token_ids")
        prompts = [
            each if isinstance(each, list) else await self._encode(each) for each in body.prompts
        ]
        max_tokens = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        for prompt in prompts:
            self._check(prompt, max_tokens, "prompt")
        return prompts, max_tokens

    async def chat(self, body: ChatRequest) -> tuple[list[int], int]:
        """Return the templated messages as token ids, and max_tokens.

        Raises:
            ApiError: 400; as `completion`, or there is no chat template, or it refuses.
        """
        self._need_tokenizer("messages", "use /v1/completions with token ids")
        if self._template is None:
            raise ApiError.bad_input(
                "messages",
                "the model folder has no chat template",
                "add chat_template.jinja, or use /v1/completions",
            )
        messages = [
            {"role": "system" if each.role == "developer" else each.role, "content": each.content}
            for each in body.messages
        ]
        try:
            text = await asyncio.to_thread(
                self._template.render, messages, body.chat_template_kwargs
            )
        except ValueError as error:
            raise ApiError.bad_input(
                "messages", f"the chat template refuses them: {error}", "change them"
            ) from error
        # The template writes the special tokens itself.
        prompt = await self._encode(text, add_special_tokens=False)
        left = self._capacity.context_length - len(prompt)
        max_tokens = body.wanted_tokens or max(1, left)
        self._check(prompt, max_tokens, "messages")
        return prompt, max_tokens

    async def _encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        tokenizer = self._need_tokenizer("prompt", "give token ids")
        # A long text takes milliseconds, in which the other streams go on.
        return await asyncio.to_thread(
            tokenizer.encode, text, add_special_tokens=add_special_tokens
        )

    def _need_tokenizer(self, field: str, mend: str) -> ByteTokenizer:
        if self.tokenizer is None:
            raise ApiError.bad_input(field, "the model folder has no tokenizer.json", mend)
        return self.tokenizer

    def _check(self, prompt: Sequence[int], max_tokens: int, field: str) -> None:
        vocab_size = self._capacity.vocab_size
        if not prompt:
            raise ApiError.bad_input(field, "it has no tokens", "give one or more")
        if min(prompt) < 0 or max(prompt) >= vocab_size:
            raise ApiError.bad_input(
                field, f"a token id is not in 0..{vocab_size - 1}", "use the model's own tokenizer"
            )
        total, context = len(prompt) + max_tokens, self._capacity.context_length
        if not self._capacity.fits(total):
            raise ApiError(
                400,
                f"{field}: {len(prompt)} tokens and max_tokens {max_tokens} are {total}, more than "
                f"the context length of {context}; shorten the {field} or lower max_tokens",
                param=field,
                code="context_length_exceeded",
            )
