"""Every block of code in the pages says what runs it, or why nothing does."""

import re
from pathlib import Path

import pytest

from tests.support.manual_blocks import FENCE, MARKED, PAGES, ROOT

# What a program prints, and what Sphinx itself reads.
NOT_CODE = {"text", "{toctree}", "{eval-rst}"}
TESTS = {path.relative_to(ROOT): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
SHOWN = 2
"""So many blocks are not run, nor held against what is; each says why. Who adds one looks for a test first."""


@pytest.mark.parametrize("page", sorted(PAGES))
def test_each_block_says_what_runs_it(page: str) -> None:
    text = PAGES[page].read_text()
    code = {hit.end() for hit in FENCE.finditer(text) if hit["language"] not in NOT_CODE}
    assert code == {hit.start("block") - 1 for hit in MARKED.finditer(text) if hit["language"] not in NOT_CODE}


@pytest.mark.parametrize("page", sorted({*PAGES} - {"tutorial"}))
def test_each_block_is_run_by_what_it_names(page: str) -> None:
    """`tested: NAME`: a test that reads this page has the name. `tested by: PATH`: there is that test.

    The tutorial is one script, of all its blocks: test_tutorial.py.
    """
    reading = [
        text for text in TESTS.values() if page in text or (page.endswith("-the-trail") and "-the-trail" in text)
    ]
    for hit in MARKED.finditer(PAGES[page].read_text()):
        name = re.escape(hit["what"])
        match hit["how"]:
            case "tested":
                # Or the test runs all blocks of the page, or makes the name of two halves.
                half = re.escape(hit["what"].rpartition("-")[2])
                form = rf"[\"']{name}[\"']|tested: (?:{name}|\\w\+) -->|\}}-{half}[\"']"
                assert any(re.search(form, text) for text in reading), name
            case "tested by":
                assert Path(hit["what"]) in TESTS
            case _:
                assert len(hit["what"].split()) > 3, "a reason"


def test_few_blocks_are_only_shown() -> None:
    texts = [path.read_text() for path in PAGES.values()]
    assert sum(hit["how"] == "shown" for text in texts for hit in MARKED.finditer(text)) <= SHOWN


def test_targets_of_make_are_there() -> None:
    """Blocks named "make" in README and performance."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = re.findall(r"^\$ make (\S+)", "".join(path.read_text() for path in PAGES.values()), re.MULTILINE)
    assert {"demo", "test", "bench"} <= set(shown) <= targets
