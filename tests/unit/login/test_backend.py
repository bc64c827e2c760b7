"""The backend answers to a verified sign-in and to nothing else."""

import uuid
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import aauthenticate, authenticate, get_user_model
from django.core.checks import run_checks
from django.test import RequestFactory

from django_phi_oidc.audit.events import Origin
from django_phi_oidc.backends import OIDCAuthenticationBackend
from django_phi_oidc.errors import NotProvisioned
from django_phi_oidc.login.code_exchange import VerifiedSignIn

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


def sign_in(**changes: Any) -> VerifiedSignIn:
    given = {"provider": "default", "issuer": "https://op.example.test", "sub": "s", "claims": {}, "origin": Origin()}
    return VerifiedSignIn(**{**given, **changes})


def test_verified_sign_in_is_answered_by_the_same_user_each_time() -> None:
    first = authenticate(sign_in=sign_in())
    assert first is not None
    assert authenticate(sign_in=sign_in()) == first
    assert authenticate(sign_in=sign_in(sub="t")) != first
    assert authenticate(sign_in=sign_in(issuer="https://op.example.test/")) != first


@pytest.mark.parametrize("path", ["/admin/login/", "/oidc/callback/?code=x&state=y"])
def test_password_is_not_answered_whatever_the_request_bears(path: str) -> None:
    get_user_model().objects.create_user("amina", password="right")
    request = RequestFactory().get(path)
    assert authenticate(request, username="amina", password="right") is None
    assert authenticate(request, nonce="x", code_verifier="y") is None


def test_password_is_not_answered_in_an_event_loop_either() -> None:
    get_user_model().objects.create_user("amina", password="right")
    assert async_to_sync(aauthenticate)(None, username="amina", password="right") is None


def test_sub_and_claims_stay_out_of_the_repr() -> None:
    shown = repr(sign_in(sub="secret-sub", claims={"birthdate": "1984-03-09"}))
    assert "secret-sub" not in shown
    assert "1984" not in shown
    assert "op.example.test" in shown


@pytest.mark.parametrize("active", [True, False])
def test_get_user_honours_is_active(active: bool) -> None:
    user = get_user_model().objects.create_user("amina", is_active=active)
    backend = OIDCAuthenticationBackend()
    assert backend.get_user(user.pk) == (user if active else None)
    assert async_to_sync(backend.aget_user)(user.pk) == (user if active else None)
    assert backend.get_user(uuid.uuid4().int % 10**9) is None


def test_permission_checks_need_no_setting_of_mozilla(settings: Any) -> None:
    assert not [name for name in dir(settings) if name.startswith("OIDC_")]
    user = get_user_model().objects.create_user("amina")
    assert user.has_perm("auth.view_user") is False
    assert run_checks() == []


def test_first_sign_in_makes_an_account_where_the_provider_says_create_alone(settings: Any) -> None:
    declared = settings.PHI_OIDC["PROVIDERS"]["default"]
    existing = {**declared, "provisioning": "existing"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declared, "other": existing}}
    known = authenticate(sign_in=sign_in())
    for provider in ("other", "not declared"):
        with pytest.raises(NotProvisioned):
            authenticate(sign_in=sign_in(provider=provider, sub="new"))
        assert authenticate(sign_in=sign_in(provider=provider)) == known
    assert get_user_model().objects.count() == 1
    assert authenticate(sign_in=sign_in(sub="new")) != known
