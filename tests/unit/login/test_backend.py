"""The authentication backend accepts a verified sign-in and nothing else."""

import uuid
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import aauthenticate, authenticate, get_user_model
from django.core.checks import run_checks
from django.test import RequestFactory

from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import use_origin
from django_phi_oidc.backends import OIDCAuthenticationBackend
from django_phi_oidc.errors import NotProvisioned
from django_phi_oidc.login.code_exchange import VerifiedSignIn

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


def sign_in(**changes: Any) -> VerifiedSignIn:
    fields = {"provider": "default", "issuer": "https://op.example.test", "sub": "s", "claims": {}, "origin": Origin()}
    return VerifiedSignIn(**{**fields, **changes})


def test_verified_sign_in_returns_the_same_user_each_time() -> None:
    first = authenticate(sign_in=sign_in())
    assert first is not None
    assert authenticate(sign_in=sign_in()) == first
    assert authenticate(sign_in=sign_in(sub="t")) != first
    assert authenticate(sign_in=sign_in(issuer="https://op.example.test/")) != first


@pytest.mark.parametrize("path", ["/admin/login/", "/oidc/callback/?code=x&state=y"])
def test_password_is_not_accepted(path: str) -> None:
    get_user_model().objects.create_user("amina", password="right")
    request = RequestFactory().get(path)
    assert authenticate(request, username="amina", password="right") is None
    assert authenticate(request, nonce="x", code_verifier="y") is None


def test_password_is_not_accepted_in_an_event_loop() -> None:
    get_user_model().objects.create_user("amina", password="right")
    assert async_to_sync(aauthenticate)(None, username="amina", password="right") is None


class Promoting(OIDCAuthenticationBackend):
    """Changes the roles of the user at each sign-in."""

    def create_user(self, claims: Any) -> Any:
        user: Any = super().create_user(claims)
        user.is_staff = True
        user.save()
        return user

    def update_user(self, user: Any, claims: Any) -> Any:
        user.is_superuser = True
        user.save()
        return user


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_g2_roles_that_hooks_change_are_recorded_without_the_previous_user_of_the_browser(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.Promoting"]
    origin = Origin(actor="4711", session="of another person", client_ip="192.0.2.7", request_id="r")
    with use_origin(lambda: origin):
        for _ in range(2):
            user = authenticate(sign_in=sign_in(origin=origin))
    assert user is not None
    created, updated = AuditEvent.objects.filter(action="role.changed").order_by("id")
    assert (created.detail, updated.detail) == ('{"granted":["is_staff"]}', '{"granted":["is_superuser"]}')
    assert (created.actor, updated.actor) == ("", str(user.pk))
    for event in (created, updated):
        assert (event.resource, event.session, event.client_ip) == (f"user/{user.pk}", "", "192.0.2.7")


def test_repr_hides_sub_and_claims() -> None:
    text = repr(sign_in(sub="secret-sub", claims={"birthdate": "1984-03-09"}))
    assert "secret-sub" not in text
    assert "1984" not in text
    assert "op.example.test" in text


@pytest.mark.parametrize("active", [True, False])
def test_get_user_respects_is_active(active: bool) -> None:
    user = get_user_model().objects.create_user("amina", is_active=active)
    backend = OIDCAuthenticationBackend()
    assert backend.get_user(user.pk) == (user if active else None)
    assert async_to_sync(backend.aget_user)(user.pk) == (user if active else None)
    assert backend.get_user(uuid.uuid4().int % 10**9) is None


def test_permission_checks_need_no_mozilla_setting(settings: Any) -> None:
    assert not [name for name in dir(settings) if name.startswith("OIDC_")]
    user = get_user_model().objects.create_user("amina")
    assert user.has_perm("auth.view_user") is False
    assert run_checks() == []


def test_first_sign_in_creates_an_account_only_with_provisioning_create(settings: Any) -> None:
    provider = settings.PHI_OIDC["PROVIDERS"]["default"]
    existing = {**provider, "provisioning": "existing"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider, "other": existing}}
    known = authenticate(sign_in=sign_in())
    for name in ("other", "not declared"):
        with pytest.raises(NotProvisioned):
            authenticate(sign_in=sign_in(provider=name, sub="new"))
        assert authenticate(sign_in=sign_in(provider=name)) == known
    assert get_user_model().objects.count() == 1
    assert authenticate(sign_in=sign_in(sub="new")) != known
