"""Providers as they are: what each does that the specifications have otherwise, and the named setting that allows it.

Each is accepted with its setting, which `check` lists, and refused without it, while nothing else is bent.
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


def lacks(*names: str) -> Hook:
    """Leave members out of the metadata, and out of the answer at the callback what they promise."""

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


def public_alone(endpoint: str, exchange: MutableExchange) -> None:
    if endpoint == "discovery":
        exchange.reply.json["subject_types_supported"] = ["public"]


def claims_unasked(endpoint: str, exchange: MutableExchange) -> None:
    if endpoint == "id_token":
        exchange.claims |= {"birthdate": "1984-03-09", "ssn": "078-05-1120"}


def null_alone(op: DemoProvider) -> Hook:
    """Answer to what was asked for with null, and to nothing that was asked for with more."""

    def hook(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "userinfo" and exchange.reply.json:
            asked = op.last_grant.claims.get("userinfo", {})
            exchange.reply.json = {
                name: value for name, value in exchange.reply.json.items() if asked.get(name) is None
            }

    return hook


def entra(op: DemoProvider, *, issuer: str) -> Hook:
    """A tenant in the issuer, keys without alg, no revocation, no RFC 9207. issuer: as its own metadata has it."""
    document: dict[str, Any] = {}

    def hook(endpoint: str, exchange: MutableExchange) -> Reply | None:
        lacks("revocation_endpoint", "authorization_response_iss_parameter_supported")(endpoint, exchange)
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
    """What a provider does, with what it is accepted, and what the portal says without that."""

    id: str
    bend: Callable[[DemoProvider], Hook]
    code: str
    without: dict[str, Any]
    allowing: dict[str, Any]
    listed: str
    """Check ids of the loosening; empty where nothing is loosened."""
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
        "Glewlwyd: the claims parameter knows null alone",
        null_alone,
        "claim_missing",
        {"claims_request": "parameter"},
        {"claims_request": "parameter_null"},
        "",
        essential=True,
    ),
    Quirk(
        "LemonLDAP::NG: neither revocation nor RFC 9207",
        lambda op: lacks("revocation_endpoint", "authorization_response_iss_parameter_supported"),
        "revocation_unsupported",
        {},
        {"revocation": "best_effort"},
        "W002",
        stage="request",
    ),
    Quirk(
        "LemonLDAP::NG: pairwise subjects that its metadata do not tell of",
        lambda op: public_alone,
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


def listed() -> set[str]:
    """Return the loosenings that check lists, but that tests speak http."""
    return {message.id.rpartition(".")[2] for message in run_checks() if message.id} - {"E006"}


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: quirk.id)
def test_quirk_is_accepted_with_its_setting_and_refused_without(
    quirk: Quirk, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    op.mutate = quirk.bend(op)
    declare(settings, op, quirk, quirk.without)
    assert listed() == set()
    page = browser.start_sign_in() if quirk.stage == "request" else browser.sign_in(op)
    assert page.status == 403
    assert [event.reason for event in events(action="login.refused")] == [quirk.code]
    declare(settings, op, quirk, quirk.allowing)
    assert listed() == set(quirk.listed.split())
    assert browser.sign_in(op).location == "/portal/home/"
    assert browser.user() != ""
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}


def test_auth_time_zero_is_kept_as_not_told(op: DemoProvider, settings: Any, browser: Browser) -> None:
    """Whether or not it was asked for: nobody signed in on the first of January 1970."""
    op.mutate = auth_time_zero
    assert browser.sign_in(op).status == 302
    assert OIDCSession.objects.get().auth_time is None
    op.mutate = None
    assert browser.sign_in(op).status == 302
    assert OIDCSession.objects.get(ended_at__isnull=True).auth_time is not None


def test_auth_time_zero_loosens_nothing_for_another_time(op: DemoProvider, settings: Any, browser: Browser) -> None:
    """With the setting an honest auth_time that is too old stays refused."""
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


def test_claims_that_come_unasked_are_dropped_by_name(op: DemoProvider, browser: Browser) -> None:
    """Glewlwyd puts them into the ID Token; no setting is needed."""
    op.mutate = claims_unasked
    assert browser.sign_in(op).status == 302
    (over,) = events(action="claim.overfetched")
    assert "ssn" in over.detail
    assert "078-05-1120" not in over.detail
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}


def test_bad_code_that_is_answered_in_the_providers_own_words_is_a_token_error(
    op: DemoProvider, browser: Browser
) -> None:
    """Glewlwyd: 403 and `invalid_code`, which RFC 6749 5.2 does not have."""

    def refused(endpoint: str, exchange: MutableExchange) -> Reply | None:
        return Reply(status=403, json={"error": "invalid_code"}) if endpoint == "token" else None

    op.intercept = refused
    assert browser.sign_in(op).status == 403
    assert [event.reason for event in events(action="login.refused")] == ["token_error"]
    op.intercept = None
    assert browser.sign_in(op).status == 302


@pytest.mark.postgresql  # as well: what ends here is in the database
def test_tokens_of_a_provider_without_revocation_are_given_up_and_told_of(
    op: DemoProvider, settings: Any, browser: Browser
) -> None:
    """LemonLDAP::NG, Entra ID: all that is ours ends, nothing is tried for ever, and the trail tells what lives on."""
    op.mutate = lacks("revocation_endpoint")
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
        "nobody but the OP kills them"
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


def test_issuer_of_all_tenants_is_the_issuer_of_none(op: DemoProvider, settings: Any, browser: Browser) -> None:
    """Entra ID's shared metadata has a placeholder where the tenant stands."""
    options = {"revocation": "best_effort", "issuer": op.issuer + TENANT}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, **options)}}
    op.mutate = entra(op, issuer=f"{op.issuer}/{{tenantid}}/v2.0")
    assert browser.start_sign_in().status == 503
    assert [event.reason for event in events(action="login.refused")] == ["issuer_mismatch"]
    op.mutate = entra(op, issuer=op.issuer + TENANT)
    assert browser.sign_in(op).status == 302


def test_key_without_alg_that_two_keys_could_be_is_found_by_its_kid_alone(
    op: DemoProvider, settings: Any, browser: Browser
) -> None:
    """Entra ID: keys say neither PS256 nor RS256, and the demo provider has one of each kind."""
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
