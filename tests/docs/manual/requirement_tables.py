"""The controls in evidence packs, generated from the tables of requirements in the manual: `make reference`.

Such a table has the header `| id | requirement | state | in this app | test |`. The column of the ids may have another
name, such as `section`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import django_phi_oidc
from tests.support.manual_blocks import PAGES, ROOT

FILE = Path(django_phi_oidc.__file__).parent / "contrib" / "evidence" / "controls.json"
STATES = ("met", "partly", "planned", "yours", "not supported", "not applicable")
HEADER = re.compile(r"\| [^|]+ \| requirement \| state \| in this app \| test \|")
HEADING = re.compile(r"#+ (.+)")
CELL_END = re.compile(r"(?<!\\)\|")
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
NAMED_TEST = re.compile(r"`([\w/]+\.py::test_\w+)`")
SOURCES = {
    r"Proposed 45 CFR": "https://www.federalregister.gov/d/2024-30983",
    r"45 CFR (164\.\d+)": r"https://www.ecfr.gov/current/title-45/section-\1",
    r"42 CFR Part (\d+)": r"https://www.ecfr.gov/current/title-42/part-\1",
    r"RFC (\d+)": r"https://www.rfc-editor.org/rfc/rfc\1",
    r"HEART": "https://openid.net/wg/heart/",
    r"FAPI": "https://openid.net/wg/fapi/",
    r"ASVS": "https://github.com/OWASP/ASVS/tree/v5.0.0",
    r"800-63C?": "https://pages.nist.gov/800-63-4/",
    r"HIPAA": "https://www.ecfr.gov/current/title-45/part-164",
}
"""Pattern in the heading above a table, or in the title of the page → where the requirements are published. The first
one that is found counts."""


def read_pages() -> list[dict[str, Any]]:
    """Return the sets of controls, one for each table. Raises: ValueError, which names a wrong row."""
    pages = sorted(path for path in PAGES.values() if path.is_relative_to(ROOT / "docs"))
    return [found for path in pages for found in read_tables(str(path.relative_to(ROOT)), path.read_text())]


def read_tables(page: str, text: str) -> Iterator[dict[str, Any]]:
    lines = iter(text.splitlines())
    title = heading = ""
    for line in lines:
        if found := HEADING.fullmatch(line):
            heading = found[1]
            title = title or heading
        elif HEADER.fullmatch(line):
            next(lines)
            yield {
                "title": heading,
                "page": page,
                "source": find_source(page, (heading, title)),
                "controls": list(read_rows(page, lines)),
            }


def find_source(page: str, headings: Iterable[str]) -> str:
    for heading in headings:
        for pattern, source in SOURCES.items():
            if found := re.search(pattern, heading):
                return found.expand(source)
    raise ValueError(f"{page}: no source is known for this table.")


def read_rows(page: str, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Read up to the end of the table."""
    names: Counter[str] = Counter()
    for line in lines:
        if not line.startswith("| "):
            return
        cells = [plain(cell) for cell in CELL_END.split(line)[1:-1]]
        if len(cells) != 5 or cells[2] not in STATES:
            raise ValueError(f"{page}: {line[:60]}: five cells are expected, and one of the states {STATES}.")
        number, requirement, state, implementation, tests = cells
        named = [f"tests/{test}" for test in NAMED_TEST.findall(tests)]
        if state == "met" and not named:
            raise ValueError(f"{page}: {line[:60]}: no test shows what is met.")
        # A token of OSCAL begins with a letter.
        name = "c-" + re.sub(r"[^a-z0-9.]+", "-", number.lower()).strip("-.")
        names[name] += 1
        yield {
            "id": number,
            "control_id": name if names[name] == 1 else f"{name}_{names[name]}",
            "requirement": requirement,
            "state": state,
            "implementation": implementation,
            "tests": named,
        }


def plain(cell: str) -> str:
    """Return the text of a cell without links and bold type."""
    return LINK.sub(r"\1", cell).replace(r"\|", "|").replace("**", "").strip()


def render() -> str:
    return json.dumps(read_pages(), ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
