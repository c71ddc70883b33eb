"""The site: Sphinx reads the Markdown of this folder; ``make docs`` builds it, offline, into ``_build``."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from airflow_provider_flux import __version__

REPOSITORY = "https://github.com/airflow-provider-flux/airflow-provider-flux"

project = "airflow-provider-flux"
author = "The airflow-provider-flux authors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]
root_doc = "index"

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what the types mean
# Airflow's own classes are documented elsewhere, which an offline build cannot look up.
nitpick_ignore_regex = [("py:.*", r"(?!airflow_provider_flux\.).*")]
copybutton_exclude = ".linenos, .gp"


def link_repository(app: Any, docname: str, source: list[str]) -> None:
    """Turn links to files outside of this folder into links to the repository; in a checkout they work as written."""
    here = posixpath.dirname(f"docs/{docname}")

    def absolute(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, match[1]))
        return match[0] if path.startswith("docs/") else f"]({REPOSITORY}/blob/main/{path}{match[2] or ''})"

    source[0] = re.sub(r"\]\((\.\./[^)#\s]+)(#[^)]*)?\)", absolute, source[0])


def setup(app: Any) -> None:
    """Register the hook."""
    app.connect("source-read", link_repository)
