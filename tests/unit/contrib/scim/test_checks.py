"""System checks of the option `scim`."""

import importlib.util
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.test import override_settings

from django_phi_oidc.contrib.common.client_authentication import client_authenticators
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.scim_fixtures import OTHER_PROVIDER

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])

DEFAULT = settings.PHI_OIDC["PROVIDERS"]["default"]
GROUP_RULE = {"claim": "scim_groups", "values": ["Nurses"], "groups": ["clinicians"]}
CLAIM_RULE = {"claim": "birthdate", "values": ["x"], "groups": ["clinicians"]}
EXTENSION: dict[str, Any] = {"PROVIDERS": {"default": {**DEFAULT, "scim": {"subject": "extension"}}}}
INVITATION = {**DEFAULT, "scim": {"subject": "invitation"}}


def accept_tokens(*, audience: str = "another", issuer: str = OTHER_PROVIDER["issuer"], method: str = "jwt") -> Any:
    """Return the option of two providers whose access tokens are accepted. The arguments are of the second one."""
    subs = {"subs": {"hr-sync": "hr-sync"}}
    tokens = [{"audience": name, "method": method, **subs} for name in ("scim", audience)]
    scims = [{"scim": {"subject": "extension", "access_tokens": own}} for own in tokens]
    return {
        "PROVIDERS": {"default": {**DEFAULT, **scims[0]}, "other": {**OTHER_PROVIDER, "issuer": issuer, **scims[1]}}
    }


CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "off": ({}, set()),
    "on": (EXTENSION, set()),
    "invitations at a provider that creates accounts": ({"PROVIDERS": {"default": INVITATION}}, {"E002"}),
    "invitations at a provider that accepts them": (
        {"PROVIDERS": {"default": {**INVITATION, "provisioning": "invitation"}}},
        set(),
    ),
    "access tokens of two providers": (accept_tokens(), set()),
    "access tokens of one audience": (accept_tokens(audience="scim"), set()),
    "access tokens of one issuer": (accept_tokens(issuer=DEFAULT["issuer"]), set()),
    "access tokens of one issuer and audience": (accept_tokens(audience="scim", issuer=DEFAULT["issuer"]), {"E151"}),
    "introspection at two providers": (accept_tokens(method="introspection"), {"E151"}),
    "a role by a group": ({**EXTENSION, "ROLES": {"default": [GROUP_RULE]}}, set()),
    "a role by a group and a claim": ({**EXTENSION, "ROLES": {"default": [GROUP_RULE, CLAIM_RULE]}}, {"W150"}),
    "a role by a group without SCIM": ({"ROLES": {"default": [GROUP_RULE]}}, {"E025"}),
    "a path in the groups": ({**EXTENSION, "ROLES": {"default": [{**GROUP_RULE, "path": ["x"]}]}}, {"E025"}),
}


def find_ids() -> set[str]:
    return {str(message.id).rpartition(".")[2] for message in run_checks()}


@pytest.mark.parametrize(("options", "expected"), CASES.values(), ids=CASES)
def test_declarations(options: dict[str, Any], expected: set[str]) -> None:
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, **options)):
        assert find_ids() & {"E002", "E025", "E150", "E151", "W150"} == expected


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "django_phi_oidc.contrib.scim.checks.find_spec", lambda name: None if name == "scim2_models" else find(name)
    )
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, **EXTENSION)):
        assert "E150" in find_ids()


@pytest.mark.parametrize("is_installed", [True, False])
def test_access_tokens_need_the_app_that_verifies_them(monkeypatch: pytest.MonkeyPatch, is_installed: bool) -> None:
    if not is_installed:
        monkeypatch.setattr(client_authenticators, "_items", [])
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, **accept_tokens())):
        assert ("E151" in find_ids()) is not is_installed
