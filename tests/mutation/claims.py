"""The rows of the pages that name tests, and the recorded mutation for each row: claims.toml, claims-pages.toml.

    [["specs.md"]]                            # the page, below docs
    row = "`oidc.jose.encode_b64url`"         # text that occurs in one row of that page
    file = "oidc/jose.py"                     # below django_phi_oidc
    find = '.rstrip(b"=")'                    # text that occurs once in that file, or `count` times
    replace = ''
    test = "unit/oidc/test_jose.py::test_x"   # named by the row; may be omitted if the row names one test
    case = "a space"                          # the id of one case of a test with many slow ones; may be omitted

`make evidence` applies each mutation to a copy and demands that the test fails. Mutations are found by text and not by
line number, so that they stay valid when other lines of the file change.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
CLAIMS = tuple(map(Path(__file__).with_name, ("claims.toml", "claims-pages.toml")))
INCOMPLETE_PAGES = ("explanation/nist-800-63.md", "explanation/asvs.md", "explanation/security-rule-nprm.md")
"""Pages whose rows may still lack a mutation."""
PAGES = (
    *("specs.md", "explanation/threat-model.md", "hipaa.md", "explanation/profiles.md", "explanation/part2.md"),
    *INCOMPLETE_PAGES,
)
_HEADING = re.compile(r"^##+ (.+)$")
_NAMED_TEST = re.compile(r"`([\w/]+\.py::test_\w+)`")


class Row(NamedTuple):
    """A row of a table whose last column names tests."""

    page: str
    heading: str
    text: str
    tests: tuple[str, ...]


class Mutation(NamedTuple):
    """A change of the code that makes the claim of a row false."""

    page: str
    row: str
    file: str
    find: str
    replace: str
    test: str
    case: str = ""
    count: int = 1

    @property
    def node(self) -> str:
        """The test as pytest names it, below tests."""
        return f"{self.test}[{self.case}]" if self.case else self.test

    def __str__(self) -> str:
        return f"{self.page}: {self.row}: {self.file}: {self.find!r}"

    def apply(self, code: str) -> str:
        """Return the changed code. Raises: ValueError if the text is not there `count` times, or nothing changes."""
        if code.count(self.find) != self.count:
            raise ValueError(f"occurs {code.count(self.find)} times instead of {self.count}")
        if self.find == self.replace:
            raise ValueError("changes nothing")
        return code.replace(self.find, self.replace)


def list_rows(pages: Iterable[str] = PAGES) -> list[Row]:
    return [row for page in pages for row in parse_rows(page, (ROOT / "docs" / page).read_text())]


def parse_rows(page: str, text: str) -> Iterator[Row]:
    """Yield the rows of the tables whose last column is `test`."""
    heading, is_in_table = "", False
    for line in text.splitlines():
        if match := _HEADING.match(line):
            heading = match[1]
        if not line.startswith("|"):
            is_in_table = False
        elif line.endswith("| test |"):
            is_in_table = True
        elif is_in_table and not line.startswith("|---"):
            yield Row(page, heading, line, tuple(_NAMED_TEST.findall(line)))


def list_mutations(rows: Iterable[Row]) -> list[Mutation]:
    known = list(rows)
    return [mutation for path in CLAIMS for mutation in parse_mutations(path.read_text(), known)]


def parse_mutations(text: str, rows: Iterable[Row]) -> list[Mutation]:
    """Return the mutations. The test is empty if it was omitted and the row does not name exactly one."""
    tables: dict[str, list[dict[str, Any]]] = tomllib.loads(text)
    known = list(rows)
    mutations = []
    for page, entries in tables.items():
        for entry in entries:
            tests = {test for row in known if row.page == page and entry["row"] in row.text for test in row.tests}
            default = {"test": tests.pop() if len(tests) == 1 else ""}
            mutations.append(Mutation(**{"page": page, **default, **entry}))
    return mutations


def find_row(mutation: Mutation, rows: Iterable[Row]) -> Row | None:
    """Return the row that the mutation is for; None if its text occurs in no row, or in several."""
    found = [row for row in rows if row.page == mutation.page and mutation.row in row.text]
    return found[0] if len(found) == 1 else None


def list_faults(mutations: Iterable[Mutation], rows: Iterable[Row]) -> Iterator[str]:
    """Yield what is wrong with recorded mutations, without running a test."""
    rows, mutations = list(rows), list(mutations)
    for mutation in mutations:
        row = find_row(mutation, rows)
        if row is None:
            yield f"The text of the row is not in exactly one row: {mutation}"
        elif mutation.test not in row.tests:
            yield f"The row does not name the test {mutation.test!r}: {mutation}"
        path = ROOT / "django_phi_oidc" / mutation.file
        try:
            changed = mutation.apply(path.read_text() if path.is_file() else "")
            if path.suffix == ".py":
                compile(changed, path, "exec")
        except (SyntaxError, ValueError) as error:
            yield f"The text {error}: {mutation}"
    for duplicate in {mutation for mutation in mutations if mutations.count(mutation) > 1}:
        yield f"The mutation is recorded twice: {duplicate}"


def list_rows_without_mutation(rows: Iterable[Row], mutations: Iterable[Mutation]) -> list[Row]:
    """Return the rows that name a test and lack a mutation."""
    rows = list(rows)
    covered = {find_row(mutation, rows) for mutation in mutations}
    return [row for row in rows if row.tests and row not in covered and row.page not in INCOMPLETE_PAGES]
