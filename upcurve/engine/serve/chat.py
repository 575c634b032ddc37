"""The chat template of a checkpoint: messages to the text that the model continues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from upcurve.engine.errors import EngineInputError


class ChatTemplate:
    """A jinja2 template in a sandbox: it can neither reach Python nor change its input."""

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        """Compile a template.

        Args:
            source: as in tokenizer_config.json.
            variables: what every rendering sees, such as eos_token.

        Raises:
            EngineInputError: it is no valid template.
        """
        # The options and helpers of transformers (utils/chat_template_utils.py).
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._variables = dict(variables)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise EngineInputError(
                "model", f"the chat template is not valid: {error}", "correct it"
            ) from error

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTemplate | None:
        """Read chat_template.jinja or tokenizer_config.json; None where neither has a template.

        Raises:
            EngineInputError: a file is corrupt, or the template is not valid.
        """
        file = folder / "tokenizer_config.json"
        config: dict[str, Any] = {}
        if file.is_file():
            try:
                config = json.loads(file.read_text(encoding="utf-8"))
                source = config.get("chat_template")
                tokens = {
                    name: value["content"] if isinstance(value, dict) else value
                    for name, value in config.items()
                    if name.endswith("_token") and value is not None
                }
            except (ValueError, AttributeError, KeyError) as error:
                raise EngineInputError(
                    "model", f"{file.name} is corrupt: {error!r}", "fetch it anew"
                ) from error
        else:
            source, tokens = None, {}
        if isinstance(source, list):
            # Several templates by name: the one for plain chat.
            source = next((each["template"] for each in source if each["name"] == "default"), None)
        own = folder / "chat_template.jinja"
        if own.is_file():
            source = own.read_text(encoding="utf-8")
        return None if source is None else cls(source, tokens)

    def render(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]) -> str:
        """Return the prompt that ends where the assistant begins.

        Raises:
            ValueError: the template refuses the messages.
        """
        try:
            return self._template.render(
                {
                    **self._variables,
                    "tools": None,
                    "documents": None,
                    **options,
                    "messages": messages,
                    "add_generation_prompt": True,
                }
            )
        # A template is a program that a message can trip in any way.
        except Exception as error:
            raise ValueError(" ".join(str(error).split())) from error


def _to_json(value: Any, indent: int | None = None) -> str:
    # Not jinja2's own filter: that one escapes for HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise TemplateError(message)
