"""A global is replaced for the length of a block."""

import pytest

from django_phi_oidc._internal.overrides import override_global

SEAM = "before"


def test_global_is_restored_after_the_block_and_after_an_exception() -> None:
    with override_global(globals(), "SEAM", "inside"):
        assert SEAM == "inside"
    assert SEAM == "before"
    with pytest.raises(RuntimeError), override_global(globals(), "SEAM", "inside"):
        raise RuntimeError
    assert SEAM == "before"


def test_unknown_global_is_refused() -> None:
    with pytest.raises(KeyError), override_global(globals(), "MISSING", "inside"):
        pass
