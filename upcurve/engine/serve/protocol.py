"""The requests of OpenAI's API that this server understands, checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from upcurve.engine.schedule.request import SamplingParameters
from upcurve.engine.serve.errors import ApiError

MAX_CHOICES = 1024
"""Of one call: prompts x n."""
HARMLESS = frozenset(
    (
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    )
)
"""Parameters that change nothing in what is generated here: accepted with any value."""

UNSUPPORTED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "audio": ((), "leave it out"),
    "best_of": ((1,), "use 1"),
    "echo": ((False,), "use false"),
    "frequency_penalty": ((0,), "use 0"),
    "function_call": (("none", "auto"), "leave it out"),
    "functions": (([],), "leave it out"),
    "guided_json": ((), "leave it out"),
    "logit_bias": (({},), "leave it out"),
    "min_p": ((0,), "use 0"),
    "min_tokens": ((0,), "use ignore_eos to generate exactly max_tokens"),
    "modalities": ((["text"],), 'use ["text"]'),
    "presence_penalty": ((0,), "use 0"),
    "repetition_penalty": ((1,), "use 1"),
    "response_format": (({"type": "text"},), 'use {"type": "text"}'),
    "suffix": (("",), "leave it out"),
    "tool_choice": (("none", "auto"), "leave it out"),
    "tools": (([],), "leave it out"),
    "use_beam_search": ((False,), "use false"),
}
"""Parameter -> (the values that ask for nothing, the mend for any other)."""

Count = Annotated[int, Field(ge=0, le=20)]
TokenId = Annotated[int, Field(ge=0)]


def _stop_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(BaseModel):
    """What a stream carries beside its tokens."""

    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool = False
    continuous_usage_stats: bool = False
    """With include_usage: every chunk carries the usage so far, as vLLM has it."""
    include_obfuscation: bool = False
    """Accepted: no padding is ever sent, which is what false asks for."""


class GenerationRequest(BaseModel):
    """What both APIs share."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    """0 and -1 are all tokens."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_stop_list)] = Field(
        [], max_length=16
    )
    stop_token_ids: list[TokenId] = Field([], max_length=64)
    ignore_eos: bool = False
    n: int = Field(1, ge=1, le=128)
    """Choices for each prompt."""
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ApiError.bad_input("body", "it is no JSON object", "send one")
        kept = {}
        for name, value in data.items():
            if value is None or name in HARMLESS:
                continue
            if name in UNSUPPORTED and name not in cls.model_fields:
                neutral, mend = UNSUPPORTED[name]
                if value not in neutral:
                    raise ApiError.bad_input(name, "not supported by this server", mend)
                continue
            kept[name] = value
        return kept

    @model_validator(mode="after")
    def _streams(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ApiError.bad_input("stream_options", "the answer is no stream", "set stream")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk of a stream carries the usage so far."""
        return self.include_usage and bool(
            self.stream_options and self.stream_options.continuous_usage_stats
        )

    def sampling(self, max_tokens: int, logprobs: int | None, choice: int) -> SamplingParameters:
        """Return the engine's parameters for one of the n choices: it has the seed seed + choice.

        Past the largest int64 seeds go on at the smallest.
        """
        seed = None if self.seed is None else (self.seed + choice + 2**63) % 2**64 - 2**63
        return SamplingParameters(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_k=max(0, self.top_k),
            top_p=self.top_p,
            seed=seed,
            stop_token_ids=tuple(self.stop_token_ids),
            ignore_eos=self.ignore_eos,
            logprobs=logprobs,
        )


class CompletionRequest(GenerationRequest):
    """A body of POST /v1/completions."""

    prompt: Any
    """A text, token ids, or a list of either."""
    max_tokens: int | None = Field(None, ge=0)
    """0 is for echo alone."""
    logprobs: Count | None = None
    echo: bool = False
    best_of: int | None = Field(None, ge=1)

    @field_validator("prompt")
    @classmethod
    def _is_prompt(cls, value: Any) -> Any:
        one = _is_text(value) or _is_token_ids(value)
        several = isinstance(value, list) and (
            all(map(_is_text, value)) or all(map(_is_token_ids, value))
        )
        if not (one or several) or value == []:
            raise ApiError.bad_input(
                "prompt",
                "neither a text, a list of token ids, nor a list of texts or of such lists",
                "give one of these, not empty",
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.prompts) * self.n > MAX_CHOICES:
            raise ApiError.bad_input(
                "prompt",
                f"{len(self.prompts)} prompts with n {self.n} in one request",
                f"ask for {MAX_CHOICES} choices at most",
            )
        if self.best_of not in (None, self.n):
            raise ApiError.bad_input("best_of", f"{self.best_of} is not n", "leave it out")
        if self.max_tokens == 0 and not self.echo:
            raise ApiError.bad_input(
                "max_tokens", "0 generates nothing", "give 1 or more, or set echo"
            )
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts; each has n choices."""
        one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        prompts: list[str] | list[list[int]] = [self.prompt] if one else self.prompt
        return prompts


class Message(BaseModel):
    """One message of a chat; other fields are left out, as the template has no use for them."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str

    @model_validator(mode="before")
    @classmethod
    def _no_tool_calls(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("tool_calls"):
            raise ApiError.bad_input("messages", "tool calls are not supported", "leave them out")
        return data

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        """Join the text parts of a message that comes in parts."""
        if not isinstance(value, list):
            return value
        for part in value:
            if not isinstance(part, dict) or not isinstance(part.get("text"), str):
                raise ApiError.bad_input(
                    "messages", "a part of a message is no text", "send texts only"
                )
        return "".join(part["text"] for part in value)


class ChatRequest(GenerationRequest):
    """A body of POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: Count | None = None
    chat_template_kwargs: dict[str, Any] = {}
    """Variables for the template, such as enable_thinking."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError.bad_input("top_logprobs", "logprobs is not set", "set logprobs to true")
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            raise ApiError.bad_input(
                "max_tokens",
                f"{self.max_tokens} beside max_completion_tokens {self.max_completion_tokens}",
                "give one of them",
            )
        return self

    @property
    def wanted_tokens(self) -> int | None:
        """Most tokens to generate; None is what the context leaves."""
        return self.max_completion_tokens or self.max_tokens


AnyRequest = TypeVar("AnyRequest", bound=GenerationRequest)


def parse(kind: type[AnyRequest], data: Any) -> AnyRequest:
    """Check a decoded JSON body.

    Raises:
        ApiError: 400; it names the first field that is wrong, and the mend.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    # Positions in lists help; the names of union members do not.
    field = ".".join(str(part) for part in first["loc"]) or "body"
    if first["type"] == "extra_forbidden":
        raise ApiError.bad_input(field, "unknown parameter", "leave it out")
    if first["type"] == "missing":
        raise ApiError.bad_input(field, "missing", "give it")
    raise ApiError.bad_input(field, _lower(first["msg"]), "correct it")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_token_ids(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(type(each) is int for each in value)
