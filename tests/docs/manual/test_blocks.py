"""Every code block of the pages names what runs it, or why it is not run."""

import re
from pathlib import Path

import pytest

from tests.support.manual_blocks import FENCE, MARKED, PAGES, ROOT

# Output of programs. Indexes are no pages here, and test_readability.py allows directives in them only.
NOT_CODE = {"text"}
TESTS = {path.relative_to(ROOT): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
SHOWN = 2
"""The number of blocks that no test runs or compares; each gives the reason. Prefer a test to another one."""


@pytest.mark.parametrize("page", sorted(PAGES))
def test_each_block_has_a_marker(page: str) -> None:
    text = PAGES[page].read_text()
    code = {hit.end() for hit in FENCE.finditer(text) if hit["language"] not in NOT_CODE}
    assert code == {hit.start("block") - 1 for hit in MARKED.finditer(text) if hit["language"] not in NOT_CODE}


@pytest.mark.parametrize("page", sorted({*PAGES} - {"tutorial", "short-manual"}))
def test_each_block_is_run_by_the_test_it_names(page: str) -> None:
    """`tested: NAME`: a test that reads this page contains the name. `tested by: PATH`: that test file exists.

    The tutorial and the short manual are one script each, of all their blocks: test_tutorial.py, test_short_manual.py.
    """
    reading = [text for text in TESTS.values() if page in text]
    for hit in MARKED.finditer(PAGES[page].read_text()):
        name = re.escape(hit["what"])
        match hit["how"]:
            case "tested":
                # Or the test runs all blocks of the page, or composes the name of two parts.
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


def test_documented_make_targets_exist() -> None:
    """Blocks named "make" in README, performance and adoption."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = re.findall(r"^\$ make (\S+)", "".join(path.read_text() for path in PAGES.values()), re.MULTILINE)
    assert {"demo", "test", "bench"} <= set(shown) <= targets
