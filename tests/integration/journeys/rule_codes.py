"""Which tests show a code: refused by one, and by another accepted with all but that one thing alike."""

from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., None])

REFUSED: dict[str, list[str]] = defaultdict(list)
"""Code → the tests that see it refused. Filled where they are defined: a test that goes takes its codes along."""
ACCEPTED: dict[str, list[str]] = defaultdict(list)
"""Code → the tests that see the other half accepted."""


def refuses(*codes: str) -> Callable[[Test], Test]:
    """Mark a test that sees these codes refused."""
    return _entering(codes, REFUSED)


def accepts(*codes: str) -> Callable[[Test], Test]:
    """Mark a test that sees accepted what differs from a refusal of these codes in one thing."""
    return _entering(codes, ACCEPTED)


def shows(*codes: str) -> Callable[[Test], Test]:
    """Mark a test that sees both."""
    return _entering(codes, REFUSED, ACCEPTED)


def _entering(codes: tuple[str, ...], *registries: dict[str, list[str]]) -> Callable[[Test], Test]:
    def enter(test: Test) -> Test:
        for registry in registries:
            for code in codes:
                registry[code].append(f"{test.__module__}.{test.__name__}")
        return test

    return enter
