"""The rules as a source of roles: what they withdraw, why an account has a role, and claims that apps supply."""

import io
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import transaction

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.access.roles import Role
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.contrib.role_mapping.claim_sources import claim_sources
from django_phi_oidc.contrib.role_mapping.role_source import role_rules
from django_phi_oidc.extensions import SignIn
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import sign_in

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
WARDS = {"claim": "wards", "values": ["4B"], "groups": ["clinicians"]}


class Wards:
    """Supplies the claim of the rule."""

    claim = "wards"
    provider_option = "wards"

    def is_declared(self, provider: str) -> bool:
        return True

    def get_values(self, user_pk: Any, *, provider: str) -> list[str]:
        return ["4B"]


def grant(user: Any) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "admin", "grant", user.username, "--yes", stdout=out, stderr=io.StringIO())
    return out.getvalue()


def declare(settings: Any, *rules: dict[str, Any]) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": [*rules]})


def test_rules_that_withdraw_a_grant_are_named(settings: Any) -> None:
    user = sign_in().user
    rule = {"claim": "birthdate", "values": ["x"]}
    declare(settings, {**rule, "is_staff": True})
    assert "ROLES of default manages is_staff: a sign-in there withdraws" in grant(user)
    declare(settings, {**rule, "groups": ["clinicians"]})
    assert "ROLES" not in grant(user)


def test_role_is_explained_by_the_rules_that_grant_it(settings: Any) -> None:
    declare(settings, {**WARDS, "groups": ["others"]}, {**WARDS, "path": ["own"]})
    explained = list(role_rules.explain_role(Role("group", "clinicians")))
    assert explained == ["provider default, rule 1: claim wards > own"]
    assert list(role_rules.explain_role(Role("group", "choir"))) == []


@pytest.mark.parametrize("is_supplied", [True, False])
def test_claim_of_an_app_grants_a_role(settings: Any, monkeypatch: pytest.MonkeyPatch, is_supplied: bool) -> None:
    declare(settings, WARDS)
    monkeypatch.setattr(claim_sources, "_items", [Wards()] if is_supplied else [])
    Group.objects.create(name="clinicians")
    account = sign_in()
    user = get_user_model().objects.get(pk=account.user.pk)
    now = clock.now()
    signed_in = SignIn(
        user=user,
        provider=conf.providers()["default"],
        subject=account.subject,
        sub="sub",
        offered_acr_values=(),
        last_seen_at=now,
        is_new_link=False,
        now=now,
    )
    with transaction.atomic():
        role_rules.sync_roles(signed_in, claims={}, origin=Origin(actor=str(user.pk)))
    assert user.groups.filter(name="clinicians").exists() is is_supplied
