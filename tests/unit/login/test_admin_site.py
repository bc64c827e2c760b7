"""The logout of the admin reaches the provider of an OIDC session."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.admin import AdminSite
from django.contrib.auth import get_user_model
from django.test import Client

from django_phi_oidc.login.admin_site import use_oidc_login
from django_phi_oidc.sessions.models import OIDCSession
from tests.support.session_fixtures import ScriptedOP, SignedIn, django_session_exists

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def sign_in_staff(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> SignedIn:
    signed_in = sign_in(claims={"iss": op.issuer})
    get_user_model()._default_manager.filter(pk=signed_in.user.pk).update(is_staff=True)
    return signed_in


@pytest.mark.parametrize("urls", ["tests.urls", "tests.unit.login.admin_urls"])
def test_b5_logout_of_the_admin_ends_the_session_at_the_provider_too(
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
    settings: Any,
    urls: str,
) -> None:
    settings.ROOT_URLCONF = urls
    signed_in = sign_in_staff(op, sign_in)
    response = signed_in.client().post("/admin/logout/")
    assert not django_session_exists(signed_in.django_key)
    if urls == "tests.urls":
        assert response["Location"].partition("?")[0] == f"{op.issuer}/end-session"
        sent = parse_qs(urlsplit(response["Location"]).query)
        assert sent["post_logout_redirect_uri"] == ["https://testserver/oidc/logged-out/"]
        assert OIDCSession.objects.get().end_reason == "logout"
    else:
        # Without the URLs of the app there is no page to return to.
        assert (response.status_code, response["Location"]) == (302, settings.LOGOUT_REDIRECT_URL)
        assert OIDCSession.objects.get().end_reason == "django_logout"


def test_b5_logout_of_the_admin_needs_the_csrf_token(
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
) -> None:
    signed_in = sign_in_staff(op, sign_in)
    client = Client(enforce_csrf_checks=True)
    client.cookies = signed_in.client().cookies
    assert client.post("/admin/logout/", secure=True).status_code == 403
    assert OIDCSession.objects.get().ended_at is None


def test_b5_logout_of_a_custom_admin_site_ends_the_session_at_the_provider_too(
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
    rf: Any,
) -> None:
    site, signed_in = AdminSite(name="desk"), sign_in_staff(op, sign_in)
    use_oidc_login(site)
    request = rf.post("/desk/logout/", secure=True)
    request.session, request.user = signed_in.client().session, signed_in.user
    request._dont_enforce_csrf_checks = True
    assert site.logout(request)["Location"].partition("?")[0] == f"{op.issuer}/end-session"
