"""The option `third_party_login` of a provider: accepted and refused values."""

from typing import Any

import pytest

from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.contrib.third_party_login.declaration import ThirdPartyLoginDeclaration
from django_phi_oidc.errors import DeclarationInvalid

PROVIDER = {"issuer": "https://op.example.test", "client_id": "portal", "client_secret": "for tests only"}


def parse(**options: Any) -> ThirdPartyLoginDeclaration | None:
    return parse_provider("default", {**PROVIDER, **options}).find_option(ThirdPartyLoginDeclaration)


@pytest.mark.parametrize("is_allowed", [True, False])
def test_option_is_true_or_false(is_allowed: bool) -> None:
    assert parse(third_party_login=is_allowed) == ThirdPartyLoginDeclaration(is_allowed=is_allowed)


def test_option_is_not_declared_by_default() -> None:
    assert parse() is None


@pytest.mark.parametrize("value", [1, 0, "yes", "", {}, []])
def test_other_value_is_refused(value: Any) -> None:
    with pytest.raises(DeclarationInvalid, match=r"PROVIDERS\['default'\]\['third_party_login'\] must be"):
        parse(third_party_login=value)
