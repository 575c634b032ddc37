"""The committed page: built from the committed sources, whole, small, and of this API."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import upcurve.dashboard

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "page"
STATIC = Path(upcurve.dashboard.__file__).parent / "static"
SOURCES = ["src", "public", "contract.json", "package.json", "package-lock.json"]
SOURCES += ["tsconfig.json", "vite.config.ts"]
MEND = "run `make page` and commit upcurve/dashboard/static"


def hashes(paths: list[Path], root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())


def manifest() -> Any:
    return json.loads((STATIC / "manifest.json").read_text(encoding="utf-8"))


def test_the_bundle_was_built_from_these_sources() -> None:
    sources = [each for name in SOURCES for each in files(PAGE / name)]
    assert hashes(sources, PAGE) == manifest()["sources"], MEND


def test_the_bundle_is_the_one_that_was_built() -> None:
    built = [each for each in files(STATIC) if each.name != "manifest.json"]
    assert hashes(built, STATIC) == manifest()["built"], MEND


def test_the_types_of_the_page_are_those_of_the_api() -> None:
    spec = importlib.util.spec_from_file_location("page_contract", PAGE / "contract.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kept = json.loads((PAGE / "contract.json").read_text(encoding="utf-8"))
    assert kept == module.contract(), "run `make page`: the API's answers have changed"


def test_the_page_asks_no_other_host() -> None:
    allowed = {
        # Names of XML, never fetched.
        *("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"),
        *("http://www.w3.org/1999/xhtml", "http://www.w3.org/XML/1998/namespace"),
        *("http://www.w3.org/2000/xmlns/", "http://www.w3.org/1998/Math/MathML"),
    }
    for name in ("index.html", "app.js", "app.css", "icon.svg"):
        text = (STATIC / name).read_text(encoding="utf-8")
        found = set(re.findall(r"https?://[\w./-]+", text)) - allowed
        assert not found, name
    assert "resolved" not in (PAGE / "package-lock.json").read_text(encoding="utf-8")


def test_the_markup_leaves_nothing_for_the_policy_to_refuse() -> None:
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    assert "script-src 'self'" in html
    assert not re.search(r"<script(?![^>]*\bsrc=)", html)
    assert not re.search(r"\son\w+=|\sstyle=|<style", html)


def test_every_bundled_library_is_listed_with_its_licence() -> None:
    lock = json.loads((PAGE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    listed = re.findall(
        r"^## (\S+) - (\S+) \((\S+)\)$", (STATIC / "licences.txt").read_text("utf-8"), re.MULTILINE
    )
    names = {name for name, *_ in listed}
    assert {"preact", "@observablehq/plot", "d3-scale"} <= names
    for name, version, licence in listed:
        assert lock[f"node_modules/{name}"]["version"] == version
        assert licence in {"MIT", "ISC", "BSD-3-Clause", "Apache-2.0"}


def test_the_page_weighs_less_than_half_a_megabyte() -> None:
    served = ("index.html", "app.js", "app.css", "icon.svg")
    assert sum(len(gzip.compress((STATIC / name).read_bytes())) for name in served) < 200_000
