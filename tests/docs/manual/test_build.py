"""The manual is built without a warning, such as a dead link."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.manual_blocks import PAGES, ROOT

BUILD = [
    sys.executable,
    "-m",
    "sphinx",
    "--builder",
    "html",
    "--nitpicky",
    "--fail-on-warning",
    "--keep-going",
    "--quiet",
]
BESIDE = [ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "example_project/README.md")]
EXTERNAL = re.compile(r"\]\(([a-z]+:[^)\s]+)\)|<([a-z]+://[^>\s]+)>")


def built(source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BUILD, source, folder], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.sqlite
def test_manual_is_built_without_a_warning_and_a_dead_link_is_one(tmp_path: Path) -> None:
    whole = built(ROOT / "docs", tmp_path / "whole")
    assert (whole.returncode, whole.stderr) == (0, "")
    shown = (tmp_path / "whole" / "how-to" / "deploy.html").read_text()
    assert "Deploy to production" in shown
    shutil.copytree(ROOT / "docs" / "_static", tmp_path / "dead" / "_static")
    (tmp_path / "dead" / "conf.py").write_text(
        (ROOT / "docs" / "conf.py").read_text().replace("__file__", repr(str(ROOT / "docs" / "conf.py")))
    )
    (tmp_path / "dead" / "index.md").write_text("# Index\n\n[to nowhere](#nowhere)\n")
    dead = built(tmp_path / "dead", tmp_path / "html")
    assert dead.returncode != 0
    (warning,) = [line for line in dead.stderr.splitlines() if "WARNING" in line]
    assert "nowhere" in warning


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = {
        line
        for index in (ROOT / "docs").rglob("index.md")
        for toc in re.findall(r"```\{toctree\}\n(.*?)```", index.read_text(), re.DOTALL)
        for line in toc.split()
    }
    assert {page for page in PAGES if page != "README"} <= {entry.rpartition("/")[2] for entry in listed}


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", BESIDE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_from_beside_the_manual_lead_to_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text())
    assert [
        f"{path}#{anchor}" for path, anchor in links if anchor not in slugs((page.parent / path) if path else page)
    ] == []


def test_addresses_elsewhere_are_https() -> None:
    """Whether they answer is for `make links`, on a machine that can ask."""
    found = [
        first or second for page in [*PAGES.values(), *BESIDE] for first, second in EXTERNAL.findall(page.read_text())
    ]
    assert [url for url in found if not url.startswith(("https://", "http://127.0.0.1"))] == []
    assert len(found) > 3
