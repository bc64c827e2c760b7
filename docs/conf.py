"""How Sphinx builds the manual: `make docs`."""

import re
from pathlib import Path
from typing import Any

project = "django_phi_oidc"
copyright = "the authors of django_phi_oidc"  # noqa: A001
release = next(
    line.partition('"')[2].rstrip('"')
    for line in (Path(__file__).parents[1] / "pyproject.toml").read_text().splitlines()
    if line.startswith("version = ")
)
extensions = ["myst_parser"]
myst_heading_anchors = 4
nitpicky = True
# Measurements, for people who work on the code.
exclude_patterns = ["benchmarks"]
# The tutorial's own portal is nowhere else.
linkcheck_ignore = [r"http://127\.0\.0\.1"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_title = f"django_phi_oidc {release}"
html_theme_options = {"sidebar_hide_name": False}
# Nothing is fetched from elsewhere, and no page shows who built it when.
html_show_sphinx = False
html_copy_source = False


def without_links_out(app: Any, name: str, source: list[str]) -> None:
    """What lies beside the manual in the repository is named, and not linked."""
    source[0] = re.sub(r"\[([^\]]+)\]\((?:\.\./)+(benchmarks/[^)]*)\)", r"\1 (`docs/\2`)", source[0])
    source[0] = re.sub(
        r"\[([^\]]+)\]\((?:\.\./)+((?:[A-Z]+\.md|example_project/|tests/)[^)]*)\)", r"\1 (`\2`)", source[0]
    )


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", without_links_out)
