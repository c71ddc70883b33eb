"""Check that a tag may be released: it names the package's version, and the changelog has its changes.

``python -m scripts.check_release v0.1.0``. Needs nothing but Python: it runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problems(tag: str, version: str, changelog: str) -> list[str]:
    """Return what forbids the release, one sentence each.

    :param tag: The tag, such as ``v0.1.0``.
    :param version: The package's version.
    :param changelog: The text of CHANGELOG.md.
    """
    found = []
    if tag != f"v{version}":
        found.append(f"The tag is {tag}, but the package's version is {version}: expected the tag v{version}.")
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.MULTILINE):
        found.append(f"CHANGELOG.md has no heading '## {version} (YYYY-MM-DD)'.")
    return found


def package_version() -> str:
    """Return the version in the package, without importing it."""
    source = (ROOT / "airflow_provider_flux" / "__init__.py").read_text()
    match = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    assert match, "airflow_provider_flux/__init__.py has no __version__"
    return match[1]


def main() -> int:
    """Print the problems of the tag in the first argument; return the exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m scripts.check_release TAG", file=sys.stderr)
        return 2
    found = problems(sys.argv[1], package_version(), (ROOT / "CHANGELOG.md").read_text())
    print("\n".join(found) or f"{sys.argv[1]} can be released.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
