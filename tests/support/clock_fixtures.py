"""A signed-in user, and a fixed clock."""

from collections.abc import Iterator

import pytest

from django_phi_oidc._internal import clock
from tests.support.session_fixtures import NOW, op, sign_in  # noqa: F401 -- fixtures


@pytest.fixture
def at_noon() -> Iterator[None]:
    with clock.override_clock(lambda: NOW):
        yield
