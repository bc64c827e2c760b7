"""Deviations of real providers from the specifications, and the setting that allows each of them.

Each deviation is accepted with its setting, which `check` reports, and refused without it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.checks import run_checks

from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(**EVERYTHING)]

Hook = Callable[[str, MutableExchange], Reply | None]
TENANT = "/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0"


def without_members(*names: str) -> Hook:
    """Remove members from the metadata, and `iss` from the callback if its support is no longer announced."""

    def hook(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "discovery":
            for name in names:
                exchange.reply.json.pop(name, None)
        if endpoint == "authorize" and "authorization_response_iss_parameter_supported" in names:
            exchange.reply.query.pop("iss", None)

    return hook


def auth_time_zero(endpoint: str, exchange: MutableExchange) -> None:
    if endpoint == "id_token":
        exchange.claims["auth_time"] = 0


def only_public_subjects(endpoint: str, exchange: MutableExchange) -> None:
    if endpoint == "discovery":
        exchange.reply.json["subject_types_supported"] = ["public"]


def unrequested_claims(endpoint: str, exchange: MutableExchange) -> None:
    if endpoint == "id_token":
        exchange.claims |= {"birthdate": "1984-03-09", "ssn": "078-05-1120"}


def only_null_requests(op: DemoProvider) -> Hook:
    """Return only the claims that were requested with null, not those requested with an object."""

    def hook(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "userinfo" and exchange.reply.json:
            requested = op.last_grant.claims.get("userinfo", {})
            exchange.reply.json = {
                name: value for name, value in exchange.reply.json.items() if requested.get(name) is None
            }

    return hook


def entra(op: DemoProvider, *, issuer: str) -> Hook:
    """A tenant in the issuer, keys without alg, no revocation, no RFC 9207. issuer: the value in its metadata."""
    document: dict[str, Any] = {}

    def hook(endpoint: str, exchange: MutableExchange) -> Reply | None:
        without_members("revocation_endpoint", "authorization_response_iss_parameter_supported")(endpoint, exchange)
        if endpoint == "unknown" and exchange.path == f"{TENANT}/.well-known/openid-configuration":
            return Reply(json=document)
        if endpoint == "id_token":
            exchange.claims["iss"] = op.issuer + TENANT
        if endpoint == "jwks":
            for key in exchange.reply.json["keys"]:
                key.pop("alg")
        return None

    names = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "end_session_endpoint")
    paths = ("authorize", "token", "userinfo", "jwks", "end-session")
    document |= {name: f"{op.issuer}/{path}" for name, path in zip(names, paths, strict=True)}
    document |= {
        "issuer": issuer,
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
    return hook


@dataclass(frozen=True)
class Quirk:
    """A deviation, the options that allow it, and the code of the refusal without them."""

    id: str
    make_hook: Callable[[DemoProvider], Hook]
    code: str
    without: dict[str, Any]
    allowing: dict[str, Any]
    listed: str
    """Check ids that report the weaker option. Empty if no check is weakened."""
    stage: str = "callback"
    essential: bool = False


QUIRKS = [
    Quirk(
        "Glewlwyd: auth_time is always 0",
        lambda op: auth_time_zero,
        "auth_time_stale",
        {"max_age": 60},
        {"max_age": 60, "allow_auth_time_zero": True},
        "W014",
    ),
    Quirk(
        "Glewlwyd: the claims parameter supports only null",
        only_null_requests,
        "claim_missing",
        {"claims_request": "parameter"},
        {"claims_request": "parameter_null"},
        "",
        essential=True,
    ),
    Quirk(
        "LemonLDAP::NG: neither revocation nor RFC 9207",
        lambda op: without_members("revocation_endpoint", "authorization_response_iss_parameter_supported"),
        "revocation_unsupported",
        {},
        {"revocation": "best_effort"},
        "W002",
        stage="request",
    ),
    Quirk(
        "LemonLDAP::NG: pairwise subjects that its metadata does not announce",
        lambda op: only_public_subjects,
        "pairwise_unsupported",
        {},
        {"subject_type": "public"},
        "W001",
        stage="request",
    ),
    Quirk(
        "Entra ID: no revocation",
        lambda op: entra(op, issuer=op.issuer + TENANT),
        "revocation_unsupported",
        {"issuer": TENANT},
        {"issuer": TENANT, "revocation": "best_effort", "id_token_signed_response_alg": ["RS256"]},
        "W002",
        stage="request",
    ),
]


def declare(settings: Any, op: DemoProvider, quirk: Quirk, options: dict[str, Any]) -> None:
    declared = {**options, "issuer": op.issuer + options.get("issuer", "")}
    claims = dict(settings.PHI_OIDC["CLAIMS"])
    claims["birthdate"] = {**claims["birthdate"], "essential": quirk.essential}
    settings.PHI_OIDC = {
        **settings.PHI_OIDC,
        "PROVIDERS": {"default": declaration(op, **declared)},
        "CLAIMS": claims,
    }


def reported_checks() -> set[str]:
    """Return the check ids that are reported, except E006: tests use http."""
    return {message.id.rpartition(".")[2] for message in run_checks() if message.id} - {"E006"}


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: quirk.id)
def test_quirk_is_accepted_only_with_its_setting(
    quirk: Quirk, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    op.mutate = quirk.make_hook(op)
    declare(settings, op, quirk, quirk.without)
    assert reported_checks() == set()
    page = browser.start_sign_in() if quirk.stage == "request" else browser.sign_in(op)
    assert page.status == 403
    assert [event.reason for event in events(action="login.refused")] == [quirk.code]
    declare(settings, op, quirk, quirk.allowing)
    assert reported_checks() == set(quirk.listed.split())
    assert browser.sign_in(op).location == "/portal/home/"
    assert browser.user() != ""
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}


def test_auth_time_zero_is_stored_as_unknown(op: DemoProvider, settings: Any, browser: Browser) -> None:
    """Whether or not it was requested: 1970-01-01 is not a possible sign-in time."""
    op.mutate = auth_time_zero
    assert browser.sign_in(op).status == 302
    assert OIDCSession.objects.get().auth_time is None
    op.mutate = None
    assert browser.sign_in(op).status == 302
    assert OIDCSession.objects.get(ended_at__isnull=True).auth_time is not None


def test_allow_auth_time_zero_does_not_accept_an_old_auth_time(
    op: DemoProvider, settings: Any, browser: Browser
) -> None:
    """A real auth_time that is too old is refused even with the setting."""
    settings.PHI_OIDC = {
        **settings.PHI_OIDC,
        "PROVIDERS": {"default": declaration(op, max_age=60, allow_auth_time_zero=True)},
    }

    def hour_ago(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            exchange.claims["auth_time"] -= 3600

    op.mutate = hour_ago
    assert browser.sign_in(op).status == 403
    assert [event.reason for event in events(action="login.refused")] == ["auth_time_stale"]
    op.mutate = None
    assert browser.sign_in(op).status == 302


def test_unrequested_claims_are_dropped_and_logged_by_name(op: DemoProvider, browser: Browser) -> None:
    """Glewlwyd adds them to the ID Token. No setting is needed."""
    op.mutate = unrequested_claims
    assert browser.sign_in(op).status == 302
    (overfetched,) = events(action="claim.overfetched")
    assert "ssn" in overfetched.detail
    assert "078-05-1120" not in overfetched.detail
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}


def test_nonstandard_error_of_the_token_endpoint_is_a_token_error(op: DemoProvider, browser: Browser) -> None:
    """Glewlwyd: 403 and `invalid_code`, which RFC 6749 5.2 does not define."""

    def reject(endpoint: str, exchange: MutableExchange) -> Reply | None:
        return Reply(status=403, json={"error": "invalid_code"}) if endpoint == "token" else None

    op.intercept = reject
    assert browser.sign_in(op).status == 403
    assert [event.reason for event in events(action="login.refused")] == ["token_error"]
    op.intercept = None
    assert browser.sign_in(op).status == 302


@pytest.mark.postgresql  # in addition to SQLite, because the rows in the database are what is tested
def test_tokens_of_a_provider_without_revocation_are_abandoned_and_logged(
    op: DemoProvider, settings: Any, browser: Browser
) -> None:
    """LemonLDAP::NG, Entra ID: the session ends, nothing is retried, and the audit log records the active tokens."""
    op.mutate = without_members("revocation_endpoint")
    settings.PHI_OIDC = {
        **settings.PHI_OIDC,
        "PROVIDERS": {"default": declaration(op, revocation="best_effort")},
    }
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""
    session = OIDCSession.objects.get()
    assert StoredClaim.objects.filter(session=session.pk).exists()
    assert browser.post("/oidc/logout/").status == 302
    assert browser.user() == ""
    ended = OIDCSession.objects.get()
    assert (ended.end_reason, ended.ended_at is None) == ("logout", False)
    assert (ended.access_token, ended.refresh_token, ended.id_token) == (None, None, None)
    assert not Session.objects.exists()
    assert not StoredClaim.objects.filter(session=session.pk).exists()
    assert {token.kind for token in op.active_tokens} == {"access_token", "refresh_token"}, (
        "only the OP can revoke them"
    )
    assert session.access_token_expires_at is not None
    rows = PendingRevocation.objects.values_list("token_type_hint", "status", "token", "token_expires_at")
    assert sorted(rows) == [
        ("access_token", RevocationStatus.UNSUPPORTED, None, session.access_token_expires_at),
        ("refresh_token", RevocationStatus.UNSUPPORTED, None, None),
    ]
    reasons = [event.reason for event in events(action="token.revocation_failed")]
    assert reasons == ["revocation_unsupported"] * 2
    assert [event.reason for event in events(action="session.ended")] == ["logout"]


def test_issuer_with_a_tenant_placeholder_is_refused(op: DemoProvider, settings: Any, browser: Browser) -> None:
    """Entra ID's shared metadata has a placeholder instead of the tenant."""
    options = {"revocation": "best_effort", "issuer": op.issuer + TENANT}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, **options)}}
    op.mutate = entra(op, issuer=f"{op.issuer}/{{tenantid}}/v2.0")
    assert browser.start_sign_in().status == 503
    assert [event.reason for event in events(action="login.refused")] == ["issuer_mismatch"]
    op.mutate = entra(op, issuer=op.issuer + TENANT)
    assert browser.sign_in(op).status == 302


def test_keys_without_alg_are_selected_only_by_kid(op: DemoProvider, settings: Any, browser: Browser) -> None:
    """Entra ID: keys have no alg, and the demo provider has one PS256 and one RS256 key."""
    options = {"revocation": "best_effort", "issuer": op.issuer + TENANT}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, **options)}}
    honest = entra(op, issuer=op.issuer + TENANT)

    def without_kid(endpoint: str, exchange: MutableExchange) -> Reply | None:
        if endpoint == "id_token":
            del exchange.header["kid"]
        return honest(endpoint, exchange)

    op.mutate = without_kid
    assert browser.sign_in(op).status == 503
    assert [event.reason for event in events(action="login.refused")] == ["key_not_found"]
    op.mutate = honest
    assert browser.sign_in(op).status == 302
