"""The package is written out: one thing a line, and keyword arguments where the type checker sees them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "django_phi_oidc"
MAX_CHARACTERS_PER_LINE = 40
MAX_CONDITIONAL_EXPRESSIONS = 8
MAX_COMPREHENSIONS = 12
"""In 1,000 lines, as the other two."""
MAX_PACKED_ASSIGNMENTS = 2
MAX_UNPACKED_DICTIONARIES = 5
"""Calls whose keywords are columns that a loop or a condition chooses; a comment says so at each."""
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """What a source has: counts of lines, of characters without indentation, and of dense expressions."""

    lines: int = 0
    characters: int = 0
    conditional_expressions: int = 0
    comprehensions: int = 0
    packed_assignments: int = 0

    def __add__(self, other: "Density") -> "Density":
        return Density(
            lines=self.lines + other.lines,
            characters=self.characters + other.characters,
            conditional_expressions=self.conditional_expressions + other.conditional_expressions,
            comprehensions=self.comprehensions + other.comprehensions,
            packed_assignments=self.packed_assignments + other.packed_assignments,
        )


def measure(source: str) -> Density:
    """Count a source. Lines are those that are neither blank nor a comment."""
    lines = [line.strip() for line in source.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    nodes = list(ast.walk(ast.parse(source)))
    return Density(
        lines=len(lines),
        characters=sum(map(len, lines)),
        conditional_expressions=sum(isinstance(node, ast.IfExp) for node in nodes),
        comprehensions=sum(isinstance(node, COMPREHENSIONS) for node in nodes),
        packed_assignments=sum(map(is_packed_assignment, nodes)),
    )


def is_packed_assignment(node: ast.AST) -> bool:
    """Return whether the node assigns a tuple to a tuple, as `a, b = x, y`."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def list_unpacked_dictionaries(source: str) -> Iterator[str]:
    """Yield each call that unpacks a dictionary built in the same function: it hides keywords from the type checker."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            built = set(list_built_names(function))
            for call in ast.walk(function):
                if isinstance(call, ast.Call):
                    for keyword in call.keywords:
                        value = keyword.value
                        if keyword.arg is None and isinstance(value, ast.Name) and value.id in built:
                            yield f"{call.lineno}: {ast.unparse(call.func)}"


def list_built_names(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if isinstance(node.value, ast.Dict | ast.BinOp | ast.Call):
                yield node.target.id
        elif (
            isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict)
        ):
            yield node.targets[0].id


def list_sources() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "migrations" not in path.parts:
            yield path


def test_package_is_within_the_limits_of_density() -> None:
    total = Density()
    for path in list_sources():
        total += measure(path.read_text())
    thousands = total.lines / 1000
    assert total.characters / total.lines <= MAX_CHARACTERS_PER_LINE
    assert total.conditional_expressions / thousands <= MAX_CONDITIONAL_EXPRESSIONS
    assert total.comprehensions / thousands <= MAX_COMPREHENSIONS
    assert total.packed_assignments / thousands <= MAX_PACKED_ASSIGNMENTS


def test_keywords_are_written_out_at_the_call() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{call}"
        for path in list_sources()
        for call in list_unpacked_dictionaries(path.read_text())
    ]
    assert len(set(found)) <= MAX_UNPACKED_DICTIONARIES, found


@pytest.mark.parametrize(
    ("statement", "counted"),
    [
        ("a, b = x, y", Density(lines=1, characters=11, packed_assignments=1)),
        ("a, b = x", Density(lines=1, characters=8)),
        ("a = x if y else z", Density(lines=1, characters=17, conditional_expressions=1)),
        ("a = [x for x in y]", Density(lines=1, characters=18, comprehensions=1)),
        ("# a comment\n\n    \na = 1", Density(lines=1, characters=5)),
    ],
)
def test_density_of_a_statement(statement: str, counted: Density) -> None:
    assert measure(statement) == counted


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("options = {'a': 1}\n    call(**options)", 1),
        ("options: Any = {'a': 1} | more\n    call(**options)", 1),
        ("call(**given)", 0),
        ("options = {'a': 1}\n    call(options)", 0),
    ],
)
def test_dictionary_of_the_same_function_is_found(body: str, count: int) -> None:
    assert len(list(list_unpacked_dictionaries(f"def function(given):\n    {body}\n"))) == count
