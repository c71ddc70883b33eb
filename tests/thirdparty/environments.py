"""An environment of its own for each client, made once and kept in a folder that git ignores."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".venv-clients"


def find_python(minor: int) -> str | None:
    """Return a Python of at least 3.`minor`, or None if this machine has none on its PATH."""
    for name in (sys.executable, *(f"python3.{number}" for number in range(minor, minor + 4))):
        path = shutil.which(name)
        check = f"import sys; sys.exit(sys.version_info < (3, {minor}))"
        if path and subprocess.run([path, "-c", check], capture_output=True).returncode == 0:
            return path
    return None


def python_environment(python: str, requirement: str) -> Path:
    """Return the interpreter of an environment with `requirement`, such as ``litellm==1.0``."""
    folder = FOLDER / requirement.replace("==", "-")
    interpreter = folder / "bin" / "python"
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    _once(folder, [python, "-m", "venv", "--clear", str(folder)], pip)
    return interpreter


def node_environment(*packages: str) -> Path:
    """Return a folder whose `node_modules` has `packages`, such as ``ai@1.0``."""
    folder = FOLDER / "-".join(package.replace("/", "-") for package in packages)
    _once(folder, ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *packages])
    return folder


def _once(folder: Path, *commands: Sequence[str]) -> None:
    done = folder / ".installed"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for command in commands:
            subprocess.run(command, check=True)
        done.touch()
