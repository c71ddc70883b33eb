"""Texts that people read keep to plain English: docs, docstrings, comments, messages, and the gallery's pages.

A word is on the list because a sentence without it is shorter or clearer; CONTRIBUTING.md has the rules behind it.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(ROOT / "tests").rglob("README.md"),
    *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
CODE = [*(ROOT / "airflow_provider_flux").rglob("*.py"), *(ROOT / "dags_examples").rglob("*.py")]
PAGES = [
    path for kind in ("*.html", "*.js", "*.css") for path in (ROOT / "airflow_provider_flux" / "gallery").rglob(kind)
]

# "Perhaps" is fine before a noun or an adjective: "perhaps a path".
_VERB = r"(is|are|was|were|has|have|had|be|been|can|may|will|one|paid|sent|made|lost|\w+ed|\w+ing)"
BANNED = re.compile(
    rf"\b(told|lies|anew|mend(s|ed|ing)?|borne|in\s+vain|nobody|whom|perhaps\s+{_VERB})\b", re.IGNORECASE
)

ALLOWED: dict[tuple[str, str], str] = {}
"""The file and the words found in it -> why they are right there."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield what people read of a file, each text with the line where it begins."""
    source = path.read_text()
    if path.suffix == ".md":
        # Code is no prose: a name stays what it is.
        yield 1, re.sub(r"`[^`\n]*`", "``", source)
    elif path.suffix == ".py":
        yield from _python_texts(source)
    else:
        yield 1, source


def _python_texts(source: str) -> Iterator[tuple[int, str]]:
    yield from _comments(source)
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            words = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(words)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def _comments(source: str) -> list[tuple[int, str]]:
    """Return the comments, those of consecutive lines as one: a phrase may continue on the next line."""
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, text = comments[-1] if comments else (0, "")
            if line + text.count("\n") == token.start[0] - 1:
                comments[-1] = (line, f"{text}\n{token.string.lstrip('# ')}")
            else:
                comments.append((token.start[0], token.string))
    return comments


def findings(path: Path) -> list[str]:
    name = path.relative_to(ROOT).as_posix()
    return [
        f"{name}:{line + text.count(chr(10), 0, found.start())}: {' '.join(found[0].split())}"
        for line, text in texts(path)
        # A single word is a key or a name.
        if len(text.split()) > 1
        for found in BANNED.finditer(text)
        if (name, " ".join(found[0].split())) not in ALLOWED
    ]


@pytest.mark.parametrize("path", [*DOCS, *CODE, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_plain_words(path: Path) -> None:
    assert findings(path) == []


def test_every_kind_of_text_is_searched() -> None:
    assert all((DOCS, CODE, PAGES))
    source = '"""It is told."""\n# It is done in\n# vain.\nx = f"{told} lies there"\ny = {"told": told}\n'
    assert [(line, found[0].split()) for line, text in _python_texts(source) for found in BANNED.finditer(text)] == [
        (2, ["in", "vain"]),
        (1, ["told"]),
        (4, ["lies"]),
        (5, ["told"]),
    ]


@pytest.mark.parametrize("text", ["perhaps paid", "Perhaps one was accepted", "whom", "Mended", "buys it\nanew"])
def test_banned(text: str) -> None:
    assert BANNED.search(text)


@pytest.mark.parametrize("text", ["perhaps a path", "perhaps slow", "a proxy, perhaps", "recommended", "relies on it"])
def test_not_banned(text: str) -> None:
    assert not BANNED.search(text)


def test_every_exception_is_needed() -> None:
    for name, words in ALLOWED:
        assert any(
            words == " ".join(found[0].split()) for _, text in texts(ROOT / name) for found in BANNED.finditer(text)
        )
