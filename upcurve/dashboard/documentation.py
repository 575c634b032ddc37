"""The page /api/docs: the OpenAPI document as plain HTML, so that it needs no script and no net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.05rem; margin-top: 2.2rem; }
code { font: 13px ui-monospace, monospace; background: var(--soft); padding: .1em .3em; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem .3rem 0; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; } .scroll { overflow-x: auto; }
"""


def documentation(schema: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI document: endpoints with parameters, then every model."""
    title = f"{schema['info']['title']} {schema['info']['version']}"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}: API</title><link rel='stylesheet' href='/api/docs.css'></head>",
        f"<body><main><h1>{escape(title)}: API</h1>"
        "<p><a href='/'>Dashboard</a>, <a href='/api/openapi.json'>OpenAPI document</a></p>",
    ]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts += _operation(path, method, operation)
    parts.append("<h1>Models</h1>")
    for name, model in schema["components"]["schemas"].items():
        parts += _model(name, model)
    return "".join([*parts, "</main></body></html>"])


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2 id='{escape(path)}'><code>{escape(f'{method.upper()} {path}')}</code></h2>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    answer = operation["responses"]["200"].get("content", {}).get("application/json", {})
    yield f"<p>Answers {_kind(answer.get('schema', {}))}.</p>"
    rows = [
        (each["name"], _kind(each["schema"]), _default(each["schema"]))
        for each in operation.get("parameters", [])
    ]
    if rows:
        yield from _table(("parameter", "kind", "default"), rows)


def _model(name: str, model: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2 id='{escape(name)}'><code>{escape(name)}</code></h2>"
    yield f"<p>{escape(model.get('description', ''))}</p>"
    rows = [(field, _kind(of), "") for field, of in model.get("properties", {}).items()]
    if rows:
        yield from _table(("field", "kind", ""), rows)


def _table(header: tuple[str, ...], rows: list[tuple[str, str, str]]) -> Iterator[str]:
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in header)
    yield f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>"
    for name, kind, default in rows:
        cells = f"<td>{kind}</td><td>{escape(default)}</td>"
        yield f"<tr><th scope='row'><code>{escape(name)}</code></th>{cells}</tr>"
    yield "</tbody></table></div>"


def _kind(of: Mapping[str, Any]) -> str:
    """Return a JSON schema in words, as HTML; models are links."""
    if "$ref" in of:
        name = escape(of["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    for word in ("anyOf", "oneOf", "allOf"):
        if word in of:
            return " or ".join(_kind(each) for each in of[word])
    if "enum" in of:
        return " | ".join(f"<code>{escape(str(each))}</code>" for each in of["enum"])
    if "const" in of:
        return f"<code>{escape(str(of['const']))}</code>"
    if of.get("type") == "array":
        if "prefixItems" in of:
            return f"[{', '.join(_kind(each) for each in of['prefixItems'])}]"
        return f"list of {_kind(of.get('items', {}))}"
    return escape(str(of.get("format") or of.get("type") or "anything"))


def _default(of: Mapping[str, Any]) -> str:
    value = of.get("default")
    return "" if value in (None, [], "") else str(value)
