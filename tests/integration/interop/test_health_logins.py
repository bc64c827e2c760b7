"""Sign-in, step-up, refresh and logout at each provider of docs/benchmarks/provider-interop.md.

The software of others stands for each provider, configured as the original: provider_profiles.py.
"""

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
from django.contrib.sessions.backends.db import SessionStore

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.request_context import ASSURANCE_KEY
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.errors import TokenExpired
from django_phi_oidc.sessions.access_tokens import get_access_token
from django_phi_oidc.sessions.models import OIDCSession
from tests.integration.interop.conftest import JWT
from tests.integration.interop.django_providers.server import PASSWORD
from tests.integration.interop.provider_profiles import PROFILES, ProviderProfile
from tests.integration.interop.provider_software import (
    CertifiedSoftware,
    DjangoSoftware,
    GlewlwydSoftware,
    LemonLDAPSoftware,
    ProviderSoftware,
    ProviderUser,
)
from tests.support.django_provider import SECRET
from tests.support.glewlwyd import SECRET as GLEWLWYD_SECRET
from tests.support.log_capture import capture_all_logs
from tests.support.portal_fixtures import EVERYTHING, events

NEEDED_TO_SIGN_IN = frozenset(
    {"acr_values", "authorization_parameters", "client_assertion_audience", "client_key_header"}
    | {"dpop", "id_token_encrypted_response_alg", "userinfo_encrypted_response_alg"}
    | {"id_token_signed_response_alg", "metadata_issuer", "metadata_overrides", "metadata_url", "revocation"}
    | {"subject_type", "token_endpoint_auth_method", "token_endpoint_auth_signing_alg", "vtr"}
)
"""Options that the recipes have only where a sign-in fails without them."""
END_SESSION_LINK = re.compile(r'<a class="button" href="([^"]+)">Sign out there too')
pytestmark = pytest.mark.django_db(**EVERYTHING)
SOFTWARE: dict[str, tuple[str, str, Callable[[Any], ProviderSoftware]]] = {
    "oidc-provider": ("_op", "node", lambda op: CertifiedSoftware(op, username="amina", code=op.code)),
    "Glewlwyd": (
        "glewlwyd_server",
        "glewlwyd",
        lambda server: GlewlwydSoftware(
            server, secret=GLEWLWYD_SECRET, username="amina", password=server.password_of("amina")
        ),
    ),
    "LemonLDAP::NG": (
        "lemonldap_server",
        "lemonldap",
        lambda server: LemonLDAPSoftware(server, secret=GLEWLWYD_SECRET, user="dwho", password="dwho"),
    ),
    "django-oauth-toolkit": ("toolkit", "", lambda op: DjangoSoftware(op, username="amina", password=PASSWORD)),
    "allauth": ("allauth_idp", "allauth", lambda op: DjangoSoftware(op, login="amina", password=PASSWORD)),
    "Authlib": ("authlib_server", "", lambda op: DjangoSoftware(op, username="amina", password=PASSWORD)),
}
"""The fixture, the marker, and what drives the running software."""


@pytest.fixture(autouse=True)
def _logs_hold_no_secret(visitor: "PortalVisitor") -> Iterator[None]:
    """Search every line that a test logs for secrets, claim values and tokens."""
    with capture_all_logs() as log:
        yield
    issued = {value for _, value in visitor.tokens}
    # The hint in URLs of the user is a line of this test's own client.
    lines = re.sub(r"id_token_hint=[\w.-]+", "", "\n".join(log.lines))
    secrets = {SECRET, GLEWLWYD_SECRET, "1984-03-09", "Lake Road", *issued}
    assert [secret for secret in secrets if secret in lines] == []
    assert JWT.findall(lines) == []


class PortalVisitor:
    """A user at the portal, and each token that the provider has issued for this user."""

    def __init__(self, profile: ProviderProfile, software: ProviderSoftware, portal: str) -> None:
        self.profile = profile
        self.software = software
        self.user: ProviderUser = software.create_user(portal)
        self.tokens: set[tuple[str, str]] = set()
        self.has_pushed = False

    @property
    def session(self) -> OIDCSession:
        return OIDCSession.objects.latest("started_at")

    def open(self, path: str) -> requests.Response:
        """Open a page of the portal, answer the provider's pages, and keep the tokens that the portal has received."""
        page = self.user.get(path)
        self.has_pushed = any("request_uri=" in step.url for step in page.history)
        page = self.user.follow(page)
        self.keep_tokens()
        return page

    def keep_tokens(self) -> None:
        for session in OIDCSession.objects.filter(ended_at=None):
            values = ((kind, session.decrypt(kind)) for kind in ("access_token", "refresh_token"))
            self.tokens |= {(kind, str(value)) for kind, value in values if value}

    def list_live_kinds(self) -> set[str]:
        return {kind for kind, value in self.tokens if self.software.is_live(kind, value)}


def list_needed_options() -> Iterator[Any]:
    """Yield the profiles without one of the options that a sign-in needs."""
    for row in PROFILES:
        recipe = row.recipe if row.software == "oidc-provider" and ":" not in row.slug else None
        for option in recipe.options if recipe else ():
            if option.name in NEEDED_TO_SIGN_IN - row.optional:
                without = replace(row, omitted_option=option.name)
                yield pytest.param(without, id=f"{row.slug}-{option.name}", marks=_markers(row))


def _markers(row: ProviderProfile) -> list[pytest.MarkDecorator]:
    marker = SOFTWARE[row.software][1]
    return [getattr(pytest.mark, marker)] if marker else []


@pytest.fixture(params=[pytest.param(row, id=row.slug, marks=_markers(row)) for row in PROFILES])
def profile(request: pytest.FixtureRequest) -> ProviderProfile:
    row: ProviderProfile = request.param
    return row


def localize(options: Mapping[str, Any], *, profile: ProviderProfile, origin: str, portal: str) -> dict[str, Any]:
    """Return the options with the addresses of this test in place of those of the recipe and of the manual."""
    text = json.dumps(options).replace("https://your.host", portal)
    for host in profile.hosts:
        text = text.replace(f'"https://{host}', f'"{origin}')
    return dict(json.loads(text))


@pytest.fixture
def visitor(profile: ProviderProfile, portal: str, request: pytest.FixtureRequest, settings: Any) -> PortalVisitor:
    """Return a user without a session, at the portal with the settings of the profile."""
    fixture, _, drive = SOFTWARE[profile.software]
    software = drive(request.getfixturevalue(fixture))
    origin = urljoin(software.server.issuer, "/").rstrip("/")
    localized = partial(localize, profile=profile, origin=origin, portal=portal)
    declaration = localized(profile.declaration)
    if "client_keys" in declaration:
        registration = {**profile.registration, "jwks_uri": f"{portal}/oidc/jwks.json"}
    else:
        registration = dict(profile.registration)
        declaration["client_secret"] = software.secret
    software.start(portal, localized(profile.configuration), registration)
    declaration = {"issuer": software.issuer, **declaration, "ca_bundle": software.server.ca_bundle}
    assert declaration["issuer"] == software.issuer
    settings.ROOT_URLCONF = "tests.integration.interop.health_login_urls"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration}}
    return PortalVisitor(profile, software, portal)


@pytest.fixture
def signed_in(visitor: PortalVisitor) -> PortalVisitor:
    page = visitor.open("/portal/")
    assert "data-user" in page.text, [page.url, *((event.reason, event.detail) for event in events())]
    assert visitor.software.is_live("access_token", str(visitor.session.decrypt("access_token")))
    return visitor


def age_sign_in(user: ProviderUser) -> None:
    """Make the authentication of the portal's session an hour older."""
    store = SessionStore(user.session_key)
    acr, timestamp = store[ASSURANCE_KEY]
    if timestamp is not None:
        store[ASSURANCE_KEY] = [acr, timestamp - 3600]
        store.save()


def get_level(action: str) -> str:
    """Return the vector of trust, or the acr, of that event."""
    (event,) = events(action=action)
    detail = json.loads(event.detail)
    return str(detail.get("vot") or detail["acr"])


def sign_out(signed_in: PortalVisitor) -> requests.Response:
    """Sign out at the portal, which revokes the tokens. The browser does not reach the provider's logout."""
    response = signed_in.user.post("/oidc/logout/")
    assert signed_in.list_live_kinds() == set(signed_in.profile.live_tokens) & {kind for kind, _ in signed_in.tokens}
    assert {event.reason for event in events(action="token.revocation_failed")} == signed_in.profile.failed_revocations
    return response


def test_sign_in_refresh_and_logout_leave_no_token(
    signed_in: PortalVisitor, profile: ProviderProfile, portal: str
) -> None:
    user = signed_in.user
    assert signed_in.has_pushed is profile.is_pushed
    assert get_level("login.succeeded") == profile.acr[0]
    assert StoredClaim.objects.exists() is profile.has_claims
    assert (signed_in.session.refresh_token is None) is bool(profile.no_refresh)
    if not profile.no_refresh:
        OIDCSession.objects.update(access_token_expires_at=clock.now() - timedelta(seconds=1))
        # An expired token is not revoked.
        signed_in.tokens.remove(("access_token", str(signed_in.session.decrypt("access_token"))))
        token = get_access_token(signed_in.session.pk)
        assert ("access_token", token) not in signed_in.tokens
        assert signed_in.software.is_live("access_token", token)
        signed_in.keep_tokens()
    response = sign_out(signed_in)
    link = END_SESSION_LINK.search(response.text)
    assert bool(link) is profile.logout_click
    location = html.unescape(link[1]) if link else response.headers["Location"]
    page = user.follow(user.web.get(urljoin(portal, location), timeout=20))
    assert page.url.startswith(f"{portal}/oidc/logged-out/"), page.url
    assert ("your sign-in service has been informed" in page.text) is (profile.logout == "with state")
    assert user.is_asked_to_sign_in(user.get("/portal/")) is (profile.logout != "at the portal only")


def test_step_up_and_logout_leave_no_token(signed_in: PortalVisitor, profile: ProviderProfile) -> None:
    age_sign_in(signed_in.user)
    page = signed_in.open(f"/portal/strong/{profile.slug}/")
    assert ("the strong page" in page.text) is not bool(profile.no_step_up), page.text
    assert len(events(action="session.renewed")) == (not profile.no_step_up)
    assert profile.no_step_up or get_level("session.renewed") == profile.acr[1]
    refusals = {event.reason for event in events(action="login.refused")}
    assert refusals == ({profile.step_up_refusal} if profile.no_step_up else set())
    sign_out(signed_in)


@pytest.mark.node
@pytest.mark.parametrize("profile", [row for row in PROFILES if row.slug == "keycloak"], indirect=True)
def test_refused_step_up_revokes_the_grant_and_the_session_ends_at_its_refresh(signed_in: PortalVisitor) -> None:
    """oidc-provider has one grant for a user and a client: docs/how-to/require-assurance.md."""
    user = signed_in.user
    user.answers = {**user.answers, "code": "wrong"}
    page = signed_in.open("/portal/strong/keycloak/")
    assert (page.status_code, "the strong page" in page.text) == (403, False)
    assert {event.reason for event in events(action="login.refused")} == {"acr_insufficient"}
    assert signed_in.list_live_kinds() == set()
    assert "data-user" in user.get("/portal/").text
    OIDCSession.objects.update(access_token_expires_at=clock.now() - timedelta(seconds=1))
    with pytest.raises(TokenExpired):
        get_access_token(signed_in.session.pk)
    assert signed_in.session.end_reason == "invalid_grant"


@pytest.mark.parametrize("profile", list(list_needed_options()), indirect=True)
def test_sign_in_without_an_option_that_the_provider_needs_is_refused(visitor: PortalVisitor) -> None:
    assert "data-user" not in visitor.open("/portal/").text
    assert not OIDCSession.objects.exists()
