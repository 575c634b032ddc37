"""One question to the engine of a recipe, as anybody would ask it."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

from upcurve.sweep.engine_process import EngineError, EngineProcess, executable, free_port
from upcurve.sweep.facts import engine_environment
from upcurve.sweep.interruption import sigterm_interrupts
from upcurve.sweep.recipe import Recipe

HOST = "127.0.0.1"
TIMEOUT_S = 120.0
TOKENS = 256
"""Of an answer at most."""


def ask(recipe: Recipe, question: str, *, log: Path) -> str:
    """Launch the engine of a recipe, ask it one question in a chat, and end it.

    Args:
        recipe: whose engine; it takes what others send, /v1/chat/completions.
        question: what the user says.
        log: file for what the engine prints; its folder exists.

    Returns:
        The most likely answer, token by token.

    Raises:
        EngineError: the engine fails, or gives no answer.
        InputError: its program does not exist.
    """
    environment = engine_environment(recipe)
    health = recipe.engine.health
    with free_port(HOST) as port:
        command = executable(recipe.command(host=HOST, port=port), environment)
        with sigterm_interrupts(), EngineProcess(command, environment, log) as engine:
            engine.wait_until_ready(HOST, port, health.path, health.timeout_s)
            return _answer(port, recipe, question, environment.get("UPCURVE_API_KEY"))


def _answer(port: int, recipe: Recipe, question: str, key: str | None) -> str:
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    body = {
        "model": recipe.served_model_name,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": TOKENS,
        "temperature": 0,
    }
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        if response.status != 200:
            raise EngineError(f"it answers a question with HTTP {response.status}: {text}")
        answer: str = json.loads(text)["choices"][0]["message"]["content"]
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"it gives no answer to a question: {error}") from error
    else:
        return answer
    finally:
        connection.close()
