"""The manual is built without a warning, such as a dead link."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.search.en import SearchEnglish

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


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built manual."""
    folder = tmp_path_factory.mktemp("manual")
    whole = built(ROOT / "docs", folder)
    assert (whole.returncode, whole.stderr) == (0, "")
    return folder


@pytest.mark.sqlite
def test_manual_is_built_without_a_warning_and_a_dead_link_is_one(manual: Path, tmp_path: Path) -> None:
    assert "Deploy to production" in (manual / "how-to" / "deploy.html").read_text()
    shutil.copytree(ROOT / "docs" / "_static", tmp_path / "dead" / "_static")
    (tmp_path / "dead" / "conf.py").write_text(
        (ROOT / "docs" / "conf.py").read_text().replace("__file__", repr(str(ROOT / "docs" / "conf.py")))
    )
    (tmp_path / "dead" / "index.md").write_text("# Index\n\n[to nowhere](#nowhere)\n")
    dead = built(tmp_path / "dead", tmp_path / "html")
    assert dead.returncode != 0
    (warning,) = [line for line in dead.stderr.splitlines() if "WARNING" in line]
    assert "nowhere" in warning


SEARCHES = [
    # query, the name of a page that is found
    ("keycloak", "keycloak"),
    ("entra id", "entra-id"),
    ("help desk", "help-desk"),
    ("version policy", "upgrade"),
    ("glossary", "glossary"),
    ("session timeout", "session-timeout-warning"),
    ("delete user", "faq"),
    ("require_assurance", "python"),
    ("migrate from mozilla", "migrate-from-mozilla"),
    ("docker", "deploy-docker"),
    ("troubleshooting", "troubleshooting"),
    ("unique email", "custom-user-models"),
    ("existing users", "migrate-existing-users"),
]


def search(manual: Path, query: str) -> set[str]:
    """Return the pages that the search of the built manual finds: each word, by its stem or a part of it, or the title.

    Sphinx's searchtools.js does the same with the same index.
    """
    text = (manual / "searchindex.js").read_text()
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    language = SearchEnglish({})
    names = [Path(name).stem for name in index["docnames"]]
    found = set(range(len(names)))
    for word in re.findall(r"\w+", query.lower()):
        if word in language.stopwords:
            continue
        stem = language.stem(word)
        hits = set()
        for terms in (index["terms"], index["titleterms"]):
            for term, pages in terms.items():
                if stem == term or (len(word) > 2 and word in term):
                    hits |= {pages} if isinstance(pages, int) else set(pages)
        found &= hits
    titles = {
        page for title, pages in index["alltitles"].items() if query.lower() in title.lower() for page, _ in pages
    }
    return {names[page] for page in found | titles}


@pytest.mark.sqlite
@pytest.mark.parametrize(("query", "page"), SEARCHES)
def test_search_finds_the_page(manual: Path, query: str, page: str) -> None:
    assert any(name.startswith(page) for name in search(manual, query))


@pytest.mark.sqlite
def test_search_does_not_find_a_word_that_no_page_has(manual: Path) -> None:
    assert search(manual, "keycloak zeppelin") == set()


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = {
        line
        for index in (ROOT / "docs").rglob("index.md")
        for toc in re.findall(r"```\{toctree\}\n:hidden:\n\n(.*?)```", index.read_text(), re.DOTALL)
        for line in toc.split()
    }
    outside = {"README", *(path.stem for path in (ROOT / "docs" / "benchmarks").iterdir())}
    assert {*PAGES} - outside <= {entry.rpartition("/")[2] for entry in listed}


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
