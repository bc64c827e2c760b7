"""How Sphinx builds the manual: `make docs`."""

import re
from pathlib import Path
from textwrap import indent
from typing import Any

import django
from django.conf import settings

project = "django_phi_oidc"
copyright = "the authors of django_phi_oidc"  # noqa: A001
release = next(
    line.partition('"')[2].rstrip('"')
    for line in (Path(__file__).parents[1] / "pyproject.toml").read_text().splitlines()
    if line.startswith("version = ")
)
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
nitpicky = True
# A signature names types that have no page here: the standard library's, Django's.
nitpick_ignore_regex = [(r"py:.*", r".*")]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
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

# What the signatures and docstrings of python.md are read from.
settings.configure(
    INSTALLED_APPS=[
        *("django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages"),
        *("django.contrib.sessions", "django_phi_oidc"),
    ]
)
django.setup()


def without_links_out(app: Any, name: str, source: list[str]) -> None:
    """What lies beside the manual in the repository is named, and not linked."""
    source[0] = re.sub(
        r"\[([^\]]+)\]\((?:\.\./)+((?:[A-Z]+\.md|example_project/|tests/)[^)]*)\)", r"\1 (`\2`)", source[0]
    )


TABLE = re.MULTILINE | re.DOTALL


def as_paragraphs(*given: Any) -> None:
    """Convert a docstring to reStructuredText: code, backticks, and a paragraph for each section such as Raises."""
    _, what, _, thing, _, lines = given
    text = "\n".join(line if line.startswith("    ") else line.replace("`", "``") for line in lines)
    # A table for readers of the code is shown as it is.
    text = re.sub(r"^=+ [= ]+\n.*^=+ [= ]+$", lambda hit: indent(hit[0].replace("``", "`"), "    "), text, flags=TABLE)
    text = re.sub(r"\n\n(?=    )", "\n\n::\n\n", text)
    text = re.sub(
        r"(?:^|(?<=\.\n)|(?<=\. ))(Raises|Requires|Spec|NOT \w+): ", r"\n\n**\1:** ", text, flags=re.MULTILINE
    )
    # A class for one step of a sign-in has the code of the rule only in its instances.
    if what == "exception" and hasattr(thing, "code"):
        text += f"\n\n**Code:** ``{thing.code}``"
    lines[:] = [*text.splitlines(), ""]


def without_objects(*given: Any) -> tuple[str | None, str | None]:
    """Show a default that is no literal as dots: Sphinx can't read a signature with one."""
    *_, signature, returned = given
    return re.sub(r"<function .+>|<factory>", "...", signature) if signature else None, returned


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", without_links_out)
    app.connect("autodoc-process-docstring", as_paragraphs)
    app.connect("autodoc-process-signature", without_objects)
