"""Registry of the tests that show a code: one test sees the refusal, another the acceptance without that fault."""

from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., None])

REFUSED: dict[str, list[str]] = defaultdict(list)
"""Code → the tests that see it refused. The decorators fill it, so a deleted test removes its codes."""
ACCEPTED: dict[str, list[str]] = defaultdict(list)
"""Code → the tests that see the acceptance."""


def refuses(*codes: str) -> Callable[[Test], Test]:
    """Mark a test that sees refusals with these codes."""
    return _register(codes, REFUSED)


def accepts(*codes: str) -> Callable[[Test], Test]:
    """Mark a test that sees an acceptance that differs from a refusal with these codes in one thing."""
    return _register(codes, ACCEPTED)


def shows(*codes: str) -> Callable[[Test], Test]:
    """Mark a test that sees both."""
    return _register(codes, REFUSED, ACCEPTED)


def _register(codes: tuple[str, ...], *registries: dict[str, list[str]]) -> Callable[[Test], Test]:
    def register(test: Test) -> Test:
        for registry in registries:
            for code in codes:
                registry[code].append(f"{test.__module__}.{test.__name__}")
        return test

    return register
