"""The code blocks of the documentation, and how each is checked.

========================================  =====================================================================
 a block in                                is
========================================  =====================================================================
 ``python`` with ``with DAG(``             run as a DAG, against the emulator and a real S3 server
 ``python`` with ``def test_``, or one     written to that file, beside the page's others, and run by pytest
 that begins with ``# folder/name.py``
 ``python``, any other                     run as a script, with the same connections
 ``py``                                    a fragment: only compiled
 ``sh``, ``bash``, ``json``, ``toml``,     only parsed
 ``yaml``, ``ini``, ``jinja``
 ``text``                                  not code: what something prints
 ``{...}``                                 a directive, which the build of the site checks
========================================  =====================================================================

``tests/dags/test_snippets.py`` runs what is run, ``tests/unit/test_docs.py`` parses the others; a block in any other
language fails there.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(ROOT / "tests").rglob("README.md"),
    *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
    *(ROOT / ".github").rglob("*.md"),
]


@dataclass(frozen=True)
class Snippet:
    """One code block.

    :param page: The page's path, relative to the repository.
    :param line: The line where the block begins.
    :param language: What follows the fence, such as ``python``.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The file that it is part of a page's tests as; empty if it is no such part."""
        if self.language != "python":
            return ""
        if named := re.match(r"# ([\w/]+\.py)\n", self.text):
            return named[1]
        return f"test_{self.line}.py" if "def test_" in self.text else ""

    @property
    def kind(self) -> str:
        """``dag``, ``test`` or ``script`` if it is run; otherwise its language."""
        if self.file:
            return "test"
        if self.language == "python":
            return "dag" if "with DAG(" in self.text else "script"
        return self.language


def snippets(path: Path) -> list[Snippet]:
    """Return the code blocks of a page, those in lists too."""
    page, source = path.relative_to(ROOT).as_posix(), path.read_text()
    blocks = re.finditer(r"(?ms)^( *)```([^\n`]*)\n(.*?)^\1```$", source)
    return [
        Snippet(page, source.count("\n", 0, block.start()) + 1, block[2].strip(), textwrap.dedent(block[3]))
        for block in blocks
    ]


SNIPPETS = [snippet for path in PAGES for snippet in snippets(path)]
