"""Expect an error with one rule code."""

from typing import Any

import pytest

from django_phi_oidc.errors import PhiOidcError, RuleCode


def raises(*expected: Any, **options: Any) -> Any:
    """Expect an exception of one of the classes, or an error of this app with one of the codes."""
    items = [item for value in expected for item in (value if isinstance(value, tuple | list) else (value,))]
    classes = tuple(item for item in items if not isinstance(item, RuleCode))
    codes = [item for item in items if isinstance(item, RuleCode)]
    return pytest.raises(
        (*classes, PhiOidcError) if codes else classes,
        check=lambda error: isinstance(error, classes) or error.code in codes,
        **options,
    )
