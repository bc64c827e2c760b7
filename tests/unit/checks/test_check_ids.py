"""Each system check, by id: no message for valid settings, and one if a single thing is wrong."""

import base64
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import django
import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.checks import Tags, run_checks
from django.db import connections
from django.http import HttpResponse
from django.test import override_settings
from django.urls import clear_url_caches, include, path
from django.views.decorators.cache import never_cache
from django.views.generic import View
from rest_framework.permissions import IsAuthenticated
from rest_framework.views import APIView

from django_phi_oidc._internal import clock, randomness
from django_phi_oidc._internal.check_messages import REGISTERED_CHECKS
from django_phi_oidc.access.mixins import PHIAccessMixin
from django_phi_oidc.audit.checks import databases as audit_databases
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.backends import OIDCAuthenticationBackend
from django_phi_oidc.checks import core, databases, transmission
from django_phi_oidc.claims.categories import create_category_permissions
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.common.retention_key_folder import prepare_folder
from django_phi_oidc.contrib.monitoring import checks as monitoring_checks
from django_phi_oidc.contrib.rest_framework.permissions import PHIAccess
from django_phi_oidc.contrib.retention_keys.key_folder import RetentionKeyFolder
from django_phi_oidc.contrib.role_mapping import checks as role_checks
from django_phi_oidc.crypto import keyring
from django_phi_oidc.decorators import phi_access, require_assurance
from django_phi_oidc.extensions import claim_key_sources
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from tests.support.check_sources import CHECK_MODULES
from tests.support.claims_fixtures import Person
from tests.support.client_keys import create_private_key_pem
from tests.support.disclosure_events import RESOURCES
from tests.support.mail_settings import mailer
from tests.support.phi_oidc_settings import override_phi_oidc

ROOT = Path(__file__).parents[3]
REVOCATION = "django_phi_oidc.middleware.RevocationMiddleware"

GUARD = "django_phi_oidc.middleware.LeakageGuardMiddleware"
GZIP = "django.middleware.gzip.GZipMiddleware"

# On SQLite Django 6.1 asks the database whether it knows JSON.
pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


class AsksForEmail(OIDCAuthenticationBackend):
    """Overrides a hook of mozilla-django-oidc that is never called."""

    def filter_users_by_claims(self, claims: Any) -> Any:
        return []


class Audited(OIDCAuthenticationBackend):
    """Overrides a supported hook."""

    def update_user(self, user: Any, claims: Any) -> Any:
        return user


def find_ids(**only: Any) -> set[str]:
    return {message.id.rpartition(".")[2] for message in run_checks(**only) if message.id}


Change = Callable[[], dict[str, Any]]
"""Returns the settings that differ."""


def option(**changes: Any) -> Change:
    return lambda: {"PHI_OIDC": override_phi_oidc(settings.PHI_OIDC, **changes)}


def with_break_glass(*accounts: str) -> Change:
    backends = [*settings.AUTHENTICATION_BACKENDS, "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend"]
    return lambda: {"AUTHENTICATION_BACKENDS": backends, **option(BREAK_GLASS_ACCOUNTS=accounts)()}


def provider(**changes: Any) -> Change:
    return option(PROVIDERS={"default": {**settings.PHI_OIDC["PROVIDERS"]["default"], **changes}})


def key_provider(**changes: Any) -> Change:
    by_key = {"client_secret": "", "token_endpoint_auth_method": "private_key_jwt", "client_keys": RSA_PEM}
    return provider(**by_key, **changes)


def api(proxies: Sequence[str] = (), **changes: Any) -> Change:
    declared = {"audience": "https://portal.example/api", "method": "jwt", **changes}
    return option(API={"default": declared}, TRUSTED_PROXIES=proxies)


def second_provider(issuer: str) -> Change:
    """Declare a second provider with that issuer."""
    declared = settings.PHI_OIDC["PROVIDERS"]["default"]
    return option(PROVIDERS={"default": declared, "other": {**declared, "issuer": issuer}})


def second_client_key(kid: str) -> Change:
    """Declare a second provider with another client key of that kid; the key of the first has the kid "a"."""
    declared = settings.PHI_OIDC["PROVIDERS"]["default"]
    keys = [{"key": RSA_PEM, "kid": "a", "use": "enc"}, {"key": create_private_key_pem("EC"), "kid": kid, "use": "enc"}]
    other = {**declared, "issuer": "https://other.example.test", "client_keys": keys[1]}
    return option(PROVIDERS={"default": {**declared, "client_keys": keys[0]}, "other": other})


def setting(name: str, value: Any) -> Change:
    return lambda: {name: value(getattr(settings, name)) if callable(value) else value}


def both(first: Change, second: Change) -> Change:
    return lambda: {**first(), **second()}


def roles(provider_name: str = "default", claim: str = "roles", **rule: Any) -> Change:
    """Declare one rule and two claims."""
    declared = {"roles": {**CLAIM, "retention": None}, "realm": {**CLAIM, "retention": None, "members": ["roles"]}}
    whole = {"claim": claim, "values": ["nurse"], "groups": ["clinicians"], **rule}
    return option(CLAIMS=declared, ROLES={provider_name: [whole]})


def managing(*names: str) -> Change:
    """Declare a provider for each group name, with one rule that manages the group."""
    declared = settings.PHI_OIDC["PROVIDERS"]["default"]
    providers = {f"p{n}": {**declared, "issuer": f"https://op{n}.example.test"} for n in range(len(names))}
    rules = {f"p{n}": [{"claim": "birthdate", "values": ["x"], "groups": [name]}] for n, name in enumerate(names)}
    return option(PROVIDERS=providers, ROLES=rules)


def emergency(**changes: Any) -> Change:
    given = {"permissions": {"portal.view_chart": "See a chart"}, "mail_to": ["privacy@example.org"]}
    return option(EMERGENCY={**given, **changes})


def mailers(**declared: Any) -> Change:
    """Return MAILERS of Django 6.1, which the check reads with every version."""
    return both(emergency(), setting("MAILERS", declared))


def mailer_of(timeout: int) -> dict[str, Any]:
    return {"BACKEND": f"{MAIL}.smtp.EmailBackend", "OPTIONS": {"timeout": timeout}}


def mailing(timeout: int | None) -> Change:
    return both(emergency(), lambda: mailer("smtp", timeout=timeout))


def email_linking(first_day: int, last_day: int) -> Change:
    """Declare it from and until these days, relative to today."""
    first, last = (clock.now().date() + timedelta(days=days) for days in (first_day, last_day))
    return provider(link_verified_email={"accounts_created_before": first, "until": last})


MAIL = "django.core.mail.backends"
RSA_PEM = create_private_key_pem("RSA")
SIGNING_PEM = create_private_key_pem("OKP")
PUBLIC_KEY = base64.b64encode(bytes(31) + b"\x01").decode()
WHY = {"purpose": "TREAT", "basis": "why"}
CLAIM = {"purpose": "TREAT", "basis": "why", "retention": "session"}
LOCMEM = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
DUMMY = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
# id, what is wrong, what differs in that one thing and is right
CASES: list[tuple[str, Change, Change]] = [
    ("E001", option(PROVIDER={}), option()),
    ("E002", provider(issuer="op"), provider(issuer="https://op")),
    ("E002", provider(issuer="https://op?x=1"), provider(issuer="https://op/x")),
    ("E002", provider(client_secret=""), provider(client_secret="s")),
    ("E002", provider(alg="RS256"), provider(id_token_signed_response_alg=["RS256"])),
    ("E002", provider(id_token_signed_response_alg=["HS256"]), provider(id_token_signed_response_alg=["ES256"])),
    ("E002", provider(token_endpoint_auth_method="none"), provider(token_endpoint_auth_method="client_secret_post")),
    ("E002", provider(leeway=121), provider(leeway=30)),
    ("E002", provider(tokens="forget"), provider(tokens="discard")),
    ("E002", provider(end_session_method="put"), provider(end_session_method="post")),
    ("E002", provider(allow_logout_token_without_exp="yes"), provider(allow_logout_token_without_exp=False)),
    ("E002", option(ACTIVATION_LIFETIME="14"), option(ACTIVATION_LIFETIME=14 * 86_400)),
    ("E002", option(ACTIVATION_LIFETIME=timedelta(0)), option(ACTIVATION_LIFETIME=timedelta(seconds=1))),
    ("E002", option(ACTIVATION_LIFETIME=timedelta(days=367)), option(ACTIVATION_LIFETIME=timedelta(days=366))),
    ("E002", option(SESSIONS={"idle_timeout": "900"}), option(SESSIONS={"idle_timeout": 900})),
    ("E002", option(SESSIONS={"idle_timeout": timedelta(0)}), option(SESSIONS={"idle_timeout": timedelta(seconds=1)})),
    (
        "E002",
        option(SESSIONS={"absolute_timeout": timedelta(-1)}),
        option(SESSIONS={"absolute_timeout": timedelta(hours=1)}),
    ),
    ("E002", option(SESSIONS={"recheck": timedelta(-1)}), option(SESSIONS={"recheck": timedelta(0)})),
    ("E002", option(SESSIONS={"end_on": ["email"]}), option(SESSIONS={"end_on": ["roles", "password"]})),
    ("E002", option(CLEAR_ALL_COOKIES="on"), option(CLEAR_ALL_COOKIES=True)),
    ("E002", option(KEEP_OFFLINE=1), option(KEEP_OFFLINE=True)),
    ("E002", option(BREAK_GLASS_ACCOUNTS="night-desk"), option(BREAK_GLASS_ACCOUNTS=[])),
    ("E002", with_break_glass("amina", "amina"), with_break_glass("amina", "basil")),
    ("E002", option(CLAIMS={"birthdate": {**CLAIM, "purpose": ""}}), option(CLAIMS={"birthdate": CLAIM})),
    ("E002", option(CLAIMS={"birthdate": {"purpose": "TREAT", "basis": "why"}}), option(CLAIMS={"birthdate": CLAIM})),
    ("E002", option(CLAIMS={"_claim_names": CLAIM}), option(CLAIMS={"claim_names": CLAIM})),
    ("E002", option(CLAIMS={"_claim_sources": CLAIM}), option(CLAIMS={"claim_sources": CLAIM})),
    (
        "E002",
        option(CLAIMS={"address": {**CLAIM, "members": "country"}}),
        option(CLAIMS={"address": {**CLAIM, "members": ["country"]}}),
    ),
    ("E002", provider(profile="heart"), key_provider(profile="heart")),
    ("E002", option(SECTOR_ORIGINS=["https://a.example.test/"]), option(SECTOR_ORIGINS=["https://a.example.test"])),
    ("E002", option(SECTOR_ORIGINS=["http://a.example.test"]), option(SECTOR_ORIGINS=["https://a.example.test:8443"])),
    ("E002", option(SECTOR_ORIGINS=["https://[::1"]), option(SECTOR_ORIGINS=["https://[::1]:8443"])),
    ("E002", option(SECTOR_ORIGINS="https://a.example.test"), option(SECTOR_ORIGINS=())),
    ("E002", option(SECTOR_ORIGINS=["https://a@b.example.test"]), option(SECTOR_ORIGINS=["https://b.example.test"])),
    ("E002", option(TRUSTED_PROXIES=7), option(TRUSTED_PROXIES=[])),
    ("E002", option(TRUSTED_PROXIES=["10.0.0.1/8"]), option(TRUSTED_PROXIES=["10.0.0.0/8"])),
    (
        "W041",
        setting("SECURE_PROXY_SSL_HEADER", ("HTTP_X_FORWARDED_PROTO", "https")),
        both(
            setting("SECURE_PROXY_SSL_HEADER", ("HTTP_X_FORWARDED_PROTO", "https")),
            option(TRUSTED_PROXIES=["10.0.0.0/8"]),
        ),
    ),
    ("E002", option(AUDIT={"resource_ids": "hashed"}), option(AUDIT={"resource_ids": "keyed"})),
    ("E002", option(AUDIT={"resource_ids": None}), option(AUDIT={"resource_ids": "plain"})),
    ("E003", option(PROVIDERS={}), option()),
    ("E004", option(KEYS={"subject": []}), option()),
    ("E004", option(KEYS={"encryption": ["short"]}), option()),
    ("E002", option(PATIENT_RESOURCES="tests.accounting.nowhere"), option(PATIENT_RESOURCES=None)),
    (
        "E002",
        option(PATIENT_RESOURCES="looks"),
        option(PATIENT_RESOURCES="tests.support.disclosure_events.resources_of"),
    ),
    ("E002", option(PATIENT_RESOURCES="tests.support.disclosure_events.STAFF"), option()),
    ("E002", option(PATIENT_RESOURCES=len), option()),
    ("E002", option(PERSON_LABEL="tests.people.nowhere"), option(PERSON_LABEL=None)),
    ("E002", option(PERSON_LABEL="label"), option(PERSON_LABEL="tests.support.disclosure_events.resources_of")),
    ("E002", option(PERSON_LABEL="tests.support.disclosure_events.STAFF"), option()),
    ("E002", option(KEYS={"retention": "keys"}), option(KEYS={"retention": None})),
    ("E004", option(KEYS={"pairwise": ["short"]}), option(KEYS={"pairwise": None})),
    ("E005", provider(issuer="http://op"), provider(issuer="https://op")),
    (
        "E005",
        provider(issuer="http://127.0.0.1:1"),
        both(provider(issuer="http://127.0.0.1:1", allow_loopback_http=True), setting("DEBUG", True)),
    ),
    ("E006", provider(allow_loopback_http=True), both(provider(allow_loopback_http=True), setting("DEBUG", True))),
    ("E007", option(CLAIMS={"birthdate": {**CLAIM, "purpose": "FUN"}}), option(CLAIMS={"birthdate": CLAIM})),
    (
        "E007",
        provider(resource_scopes={"patient/*.read": {**WHY, "purpose": "FUN"}}),
        provider(resource_scopes={"patient/*.read": WHY}),
    ),
    (
        "E008",
        setting("SESSION_ENGINE", "django.contrib.sessions.backends.signed_cookies"),
        setting("SESSION_ENGINE", "django.contrib.sessions.backends.db"),
    ),
    (
        "E009",
        both(setting("SESSION_ENGINE", "django.contrib.sessions.backends.cache"), setting("CACHES", LOCMEM)),
        both(
            setting("SESSION_ENGINE", "django.contrib.sessions.backends.cache"),
            setting("CACHES", {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache"}}),
        ),
    ),
    (
        "E009",
        both(setting("SESSION_ENGINE", "django.contrib.sessions.backends.cached_db"), setting("CACHES", DUMMY)),
        setting("CACHES", DUMMY),
    ),
    ("E010", setting("MIDDLEWARE", lambda order: [name for name in order if name != REVOCATION]), option()),
    (
        "E010",
        setting("MIDDLEWARE", lambda order: [REVOCATION, *(name for name in order if name != REVOCATION)]),
        setting("MIDDLEWARE", lambda order: [*(name for name in order if name != REVOCATION), REVOCATION]),
    ),
    (
        "E010",
        setting("MIDDLEWARE", lambda order: [name for name in order if "SessionMiddleware" not in name]),
        option(),
    ),
    ("E011", setting("AUTHENTICATION_BACKENDS", []), option()),
    (
        "E012",
        setting("AUTHENTICATION_BACKENDS", [f"{__name__}.AsksForEmail"]),
        setting("AUTHENTICATION_BACKENDS", [f"{__name__}.Audited"]),
    ),
    ("E014", setting("DATABASE_ROUTERS", []), option()),
    ("E020", setting("USE_TZ", False), setting("USE_TZ", True)),
    ("W001", provider(subject_type="public"), provider(subject_type="pairwise")),
    ("W002", provider(revocation="best_effort"), provider(revocation="required")),
    ("W003", provider(trusted_audiences=["billing"]), provider(trusted_audiences=[])),
    ("W004", provider(leeway=31), provider(leeway=30)),
    ("W005", provider(max_access_token_lifetime=86401), provider(max_access_token_lifetime=86400)),
    ("W006", both(provider(allow_loopback_http=True), setting("DEBUG", True)), setting("DEBUG", True)),
    ("W011", key_provider(token_endpoint_auth_signing_alg="RS256"), key_provider()),
    ("W011", key_provider(token_endpoint_auth_signing_alg="RS512"), key_provider()),
    ("E100", second_client_key("a"), second_client_key("b")),
    (
        "W108",
        key_provider(request_object_signing_alg="RS256"),
        key_provider(request_object_signing_alg="PS256"),
    ),
    ("W012", key_provider(client_assertion_audience="token_endpoint"), key_provider()),
    ("W013", provider(par="never"), provider(par="auto")),
    ("W014", provider(allow_auth_time_zero=True), provider(allow_auth_time_zero=False)),
    ("W034", provider(reauthentication="request"), provider(reauthentication="verify")),
    ("W034", provider(reauthentication="never"), provider()),
    ("W022", provider(allow_logout_token_without_exp=True), provider(allow_logout_token_without_exp=False)),
    (
        "W045",
        provider(metadata_overrides={"revocation_endpoint": "https://op.example.test/revoke"}),
        provider(metadata_overrides={}),
    ),
    ("E002", provider(metadata_overrides={"issuer": "https://other.example.test"}), provider(metadata_overrides={})),
    (
        "E002",
        option(OPERATIONAL_RETENTION=timedelta(hours=23)),
        option(OPERATIONAL_RETENTION=timedelta(days=1)),
    ),
    ("W040", provider(id_token_hint="always"), provider(id_token_hint="minimal")),
    (
        "W120",
        provider(metadata_url="https://a.test/x", metadata_issuer="https://a.test/y"),
        provider(metadata_url="https://a.test/x"),
    ),
    (
        "W140",
        provider(signals={"delivery": "push", "allow_draft_events": True}),
        provider(signals={"delivery": "push"}),
    ),
    ("E002", email_linking(0, 91), email_linking(0, 90)),
    ("E002", email_linking(0, 0), email_linking(0, 1)),
    ("E002", provider(link_verified_email={"until": "2026-12-31"}), provider(link_verified_email=None)),
    ("W091", email_linking(-90, 0), email_linking(-90, -1)),
    ("W091", email_linking(1, 90), provider()),
    ("W092", email_linking(-90, -1), email_linking(-90, 0)),
    ("E107", api(allow_client_cert_header=True), api()),
    (
        "W107",
        api(proxies=["10.0.0.0/24"], allow_client_cert_header=True),
        api(proxies=["10.0.0.0/24"]),
    ),
    ("W015", second_provider("https://op.example.test"), second_provider("https://op.example.test/")),
    (
        "W007",
        setting("AUTHENTICATION_BACKENDS", lambda old: [*old, "django.contrib.auth.backends.ModelBackend"]),
        option(),
    ),
    ("E024", option(BREAK_GLASS_ACCOUNTS=["night-desk"]), with_break_glass("night-desk")),
    ("E024", with_break_glass(), option()),
    ("W023", with_break_glass("night-desk"), option()),
    ("E002", roles(values=[]), roles()),
    ("E002", option(ROLES=[]), option(ROLES={})),
    ("E025", roles("other"), roles("default")),
    ("E025", roles(claim="teams"), roles(claim="roles")),
    ("E025", roles(claim="amr"), roles(claim="roles")),
    ("E025", roles(claim="realm"), roles(claim="realm", path=["roles"])),
    ("W024", managing("clinicians", "clinicians"), managing("clinicians", "clerks")),
    ("E002", emergency(mail_to=[]), emergency()),
    ("E027", emergency(spool="/nowhere/spool"), emergency(spool=str(Path(__file__)))),
    ("W027", both(emergency(), lambda: mailer("dummy")), mailing(10)),
    ("W027", mailers(), mailers(default={"OPTIONS": {"timeout": 10}})),
    ("W027", mailers(default={"BACKEND": f"{MAIL}.console.EmailBackend"}), mailers(default=mailer_of(59))),
    ("W028", mailers(default=mailer_of(60)), mailers(default=mailer_of(59))),
    ("W028", mailers(default={}), mailers(default=mailer_of(1))),
    ("W028", mailing(60), mailing(59)),
    ("W028", mailing(None), option()),
    ("E002", option(ACCOUNT_NOTICES="notices"), option(ACCOUNT_NOTICES=RESOURCES)),
    ("E002", option(ACCOUNT_NOTICES=None), option(ACCOUNT_NOTICES=True)),
    ("E002", option(ACCOUNT_NOTICES="tests.accounting.nowhere"), option(ACCOUNT_NOTICES=True)),
    ("W095", option(CLAIMS={"birth_date": CLAIM}), option(CLAIMS={"birthdate": CLAIM})),
    ("W095", option(CLAIMS={"birthdat#de": CLAIM}), option(CLAIMS={"birthdate#de": CLAIM})),
    ("W095", option(CLAIMS={"phonenumber": CLAIM}), option(CLAIMS={"phone": CLAIM, "mail": CLAIM, "emails": CLAIM})),
    ("W076", option(ACCOUNT_NOTICES=False), option(ACCOUNT_NOTICES=True)),
    ("W075", emergency(), both(emergency(), option(PATIENT_RESOURCES=RESOURCES))),
    ("E002", option(LEAKAGE_GUARD="mask"), option(LEAKAGE_GUARD="block")),
    ("E002", option(METRICS=["statsd"]), option(METRICS=["prometheus", "opentelemetry"])),
    ("E002", option(METRICS="prometheus"), option(METRICS=[])),
    ("E002", option(AUDIT_EXPORTS="exports"), option()),
    (
        "W030",
        setting("MIDDLEWARE", lambda order: [*order, GUARD]),
        setting("MIDDLEWARE", lambda order: [GUARD, *order]),
    ),
    (
        "W030",
        setting("MIDDLEWARE", lambda order: [GUARD, GZIP, *order]),
        setting("MIDDLEWARE", lambda order: [GZIP, GUARD, *order]),
    ),
]


def test_valid_settings_have_no_message() -> None:
    assert find_ids() == set()


@pytest.mark.parametrize(("check_id", "wrong", "right"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)])
def test_check_reports_wrong_settings_and_no_valid_ones(check_id: str, wrong: Change, right: Change) -> None:
    with override_settings(**wrong()):
        assert check_id in find_ids()
    with override_settings(**right()):
        assert check_id not in find_ids()


class GuardedChart(PHIAccessMixin, View):
    permission, purpose = "portal.view_chart", "TREAT"

    def get_resource(self) -> str:
        return "Patient/7"


class GuardedApi(APIView):
    permission_classes = (IsAuthenticated, PHIAccess)


@phi_access(permission="portal.view_chart", purpose="TREAT", resource=lambda request: "Patient/7")
def guarded_function(request: Any) -> HttpResponse:
    return HttpResponse()


@require_assurance(acr=["gold"])
def unguarded_function(request: Any) -> HttpResponse:
    return HttpResponse()


@pytest.mark.parametrize(
    "view", [guarded_function, never_cache(guarded_function), GuardedChart.as_view(), GuardedApi.as_view()]
)
def test_g9_guarded_view_without_patient_resources_is_reported(view: Any) -> None:
    """W075."""
    urls = ModuleType("urls")
    for callback, expected in ((view, True), (unguarded_function, False)):
        urls = ModuleType("urls")
        vars(urls)["urlpatterns"] = [path("records/", include([path("chart/", callback)]))]
        with override_settings(ROOT_URLCONF=urls):
            assert ("W075" in find_ids()) is expected
            with override_settings(**option(PATIENT_RESOURCES=RESOURCES)()):
                assert "W075" not in find_ids()


def test_c3_each_override_is_named_by_a_warning() -> None:
    names = ["revocation_endpoint", "introspection_endpoint"]
    overrides = {name: f"https://op.example.test/{name}" for name in names}
    with override_settings(**provider(metadata_overrides=overrides)()):
        messages = [message for message in run_checks() if message.id == "django_phi_oidc.W045"]
    assert [any(name in message.msg for message in messages) for name in names] == [True, True]


def test_audit_alias_and_its_options_are_checked() -> None:
    """E013, E015, E016: checked directly, because Django opens only the databases that are configured at start."""
    good = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 5,
        "init_command": "PRAGMA journal_mode = WAL; PRAGMA secure_delete = ON",
    }
    assert list(audit_databases._check_sqlite_options("default", good)) == []
    for name, wrong in (("transaction_mode", "DEFERRED"), ("timeout", 1), ("init_command", "PRAGMA journal_mode=wal")):
        for options in ({**good, name: wrong}, {key: value for key, value in good.items() if key != name}):
            (message,) = audit_databases._check_sqlite_options("default", options)
            assert message.id == "django_phi_oidc.E016"
            assert name in message.msg


@pytest.mark.filterwarnings("ignore:The EMAIL_")
@pytest.mark.parametrize(
    ("mail", "expected"),
    [
        (mailer("smtp", timeout=59), set()),
        (mailer("smtp", timeout=60), {"W078"}),
        (mailer("smtp"), {"W078"}),
        (mailer("console"), {"W077"}),
    ],
)
def test_g12_mail_that_delays_or_loses_notices_is_reported_on_deployment(
    mail: dict[str, Any], expected: set[str]
) -> None:
    """W077, W078."""
    with override_settings(**{"EMAIL_TIMEOUT": None, **mail}):
        assert find_ids(include_deployment_checks=True) & {"W077", "W078"} == expected
        with override_settings(**option(ACCOUNT_NOTICES=False)()):
            assert find_ids(include_deployment_checks=True) & {"W077", "W078"} == set()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"ASGI_APPLICATION": None}, False),
        ({"CONN_MAX_AGE": None}, True),
        ({"CONN_MAX_AGE": 0}, False),
        ({"OPTIONS": {"pool": True}}, False),
        ({"ENGINE": "django.db.backends.sqlite3"}, False),
    ],
    ids=str,
)
def test_persistent_connections_under_asgi_are_reported(
    changed: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W043."""
    database = {**settings.DATABASES["default"], "ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": 60}
    application = changed.get("ASGI_APPLICATION", "portal.asgi.application")
    changed = {name: value for name, value in changed.items() if name != "ASGI_APPLICATION"}
    monkeypatch.setitem(settings.DATABASES, "phi_audit", {**database, **changed})
    with override_settings(ASGI_APPLICATION=application):
        messages = [message for message in databases.check_asgi_connections(None) if message.id]
    assert [message.id for message in messages] == (["django_phi_oidc.W043"] if expected else [])


@pytest.mark.postgresql
@pytest.mark.parametrize("alias", ["default", "phi_audit"])
def test_d5_transactions_without_an_idle_timeout_are_reported(alias: str) -> None:
    """W042."""

    def is_reported() -> bool:
        ids = find_ids(tags=["database"], include_deployment_checks=True, databases=[alias])
        return "W042" in ids

    assert is_reported()
    with connections[alias].cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '60s'")
    assert not is_reported()


@pytest.mark.sqlite
@pytest.mark.parametrize("alias", ["default", "phi_audit"])
@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_options_of_each_sqlite_database_are_checked(alias: str) -> None:
    """E016."""
    patient = {**settings.DATABASES[alias], "OPTIONS": {**settings.DATABASES[alias]["OPTIONS"], "timeout": 1}}
    assert find_ids() == set()
    with override_settings(DATABASES={**settings.DATABASES, alias: patient}):
        (message,) = run_checks()
    assert message.id == "django_phi_oidc.E016"
    assert f"DATABASES[{alias!r}]" in message.msg


@pytest.mark.sqlite
@pytest.mark.parametrize(("version", "expected"), [((3, 36, 9), ["E072", "E072"]), ((3, 37, 0), [])])
def test_sqlite_that_is_too_old_is_reported(
    version: tuple[int, ...], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlite3.dbapi2.sqlite_version_info", version)
    assert [message.id[-4:] for message in run_checks()] == expected


@pytest.mark.postgresql
@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_audit_database_without_connect_timeout_is_reported() -> None:
    """W009."""
    patient = {**settings.DATABASES["phi_audit"], "OPTIONS": {}}
    with override_settings(DATABASES={**settings.DATABASES, "phi_audit": patient}):
        assert find_ids() == {"W009"}


@pytest.mark.parametrize(
    ("check_id", "change"),
    [
        ("E013", lambda databases: {"default": databases["default"]}),
        (
            "E019",
            lambda databases: {
                alias: {**databases[alias], "ENGINE": "django.db.backends.sqlite3", "NAME": "one file"}
                for alias in databases
            },
        ),
        ("E015", lambda databases: {**databases, "phi_audit": {**databases["phi_audit"], "ATOMIC_REQUESTS": True}}),
    ],
)
@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_audit_alias_is_checked(check_id: str, change: Callable[[Any], Any]) -> None:
    assert check_id not in find_ids()
    with override_settings(DATABASES=change(settings.DATABASES)):
        assert check_id in find_ids()


FAR = {"HOST": "db.example.test"}
# what is reached in clear, what differs in that one thing and is right
CONNECTIONS = [
    ({"HOST": "db.example.test"}, {"HOST": "localhost"}),
    ({"HOST": "192.0.2.1"}, {"HOST": "127.0.0.2"}),
    ({"HOST": "2001:db8::1"}, {"HOST": "::1"}),
    ({"HOST": "db.example.test"}, {"HOST": "/run/postgresql"}),
    ({"HOST": "db.example.test"}, {"HOST": ""}),
    ({"HOST": "127.0.0.1,192.0.2.1"}, {"HOST": "127.0.0.1,localhost"}),
    ({"HOST": "", "OPTIONS": {"service": "records"}}, {"HOST": ""}),
    ({"HOST": "", "OPTIONS": {"host": "192.0.2.1"}}, {"HOST": "", "OPTIONS": {"host": "127.0.0.1"}}),
    ({"HOST": "localhost", "OPTIONS": {"hostaddr": "192.0.2.1"}}, {**FAR, "OPTIONS": {"hostaddr": "127.0.0.1"}}),
    *(
        ({**FAR, "OPTIONS": {"sslmode": wrong}}, {**FAR, "OPTIONS": {"sslmode": "verify-full"}})
        for wrong in ("disable", "allow", "prefer", "require", "verify-ca")
    ),
]


def find_deployment_ids() -> set[str]:
    """Return the ids without those of other warnings that the settings of the tests cause."""
    own = [message for message in run_checks(include_deployment_checks=True) if "phi_oidc" in str(message.id)]
    return {message.id.rpartition(".")[2] for message in own if message.id} - {"W057", "W065", "W077", "W078"}


@pytest.mark.parametrize(
    "outside",
    [
        {"AUDIT": {"witness_file": "/mnt/witness"}},
        {"SIEM": {"siem": {"type": "file", "path": "/mnt/log"}}},
        {"AUDIT": {"witnesses": {"w1": {"key": "w+00000000+AA==", "url": "https://w.example"}}}},
    ],
    ids=str,
)
def test_g10_audit_log_without_a_copy_outside_of_its_database_is_reported_on_deployment(outside: Any) -> None:
    """W065."""

    def find_in_deployment() -> set[str]:
        return {str(message.id) for message in run_checks(include_deployment_checks=True)}

    assert "W065" not in find_ids()
    assert "django_phi_oidc.W065" in find_in_deployment()
    with override_settings(**option(**outside)()):
        assert "django_phi_oidc.W065" not in find_in_deployment()


@pytest.mark.postgresql
@pytest.mark.parametrize("alias", ["default", "phi_audit"])
@pytest.mark.parametrize(("wrong", "right"), CONNECTIONS)
@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_unencrypted_database_connection_is_reported_on_deployment(
    alias: str, wrong: dict[str, Any], right: dict[str, Any]
) -> None:
    """W017."""

    def changed(change: dict[str, Any]) -> dict[str, Any]:
        near = {name: {**declared, "HOST": "localhost"} for name, declared in settings.DATABASES.items()}
        options = {"connect_timeout": 5, **change.get("OPTIONS", {})}
        return {**near, alias: {**near[alias], **change, "OPTIONS": options}}

    with override_settings(DATABASES=changed(wrong)):
        assert (find_deployment_ids(), find_ids()) == ({"W017"}, set())
        (message,) = [message for message in run_checks(include_deployment_checks=True) if message.id.endswith(".W017")]
        assert repr(alias) in message.msg
    with override_settings(DATABASES=changed(right)):
        assert find_deployment_ids() == set()


@pytest.mark.sqlite
@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_host_of_a_sqlite_database_is_ignored() -> None:
    with override_settings(DATABASES={alias: {**each, **FAR} for alias, each in settings.DATABASES.items()}):
        assert find_deployment_ids() == set()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("amqp://user:secret@mq.example.test//", "amqps://user:secret@mq.example.test//"),
        ("redis://:secret@192.0.2.1:6379/0", "rediss://:secret@192.0.2.1:6379/0"),
        ("redis://192.0.2.1", "redis://127.0.0.1"),
        ("pyamqp://mq.example.test", "pyamqp://localhost"),
        ("amqp://[2001:db8::1]", "amqp://[::1]"),
        ("amqp://mq.example.test", "amqp://"),
        ("redis://redis.example.test", "redis+socket:///run/redis.sock"),
        ("amqps://a.example.test;amqp://b.example.test", "amqps://a.example.test;amqps://b.example.test"),
        (["amqp://localhost", "amqp://b.example.test"], ["amqp://localhost"]),
        ("amqp://user:[secret@mq.example.test", None),
        ("redis://192.0.2.1", "memory://"),
    ],
)
def test_unencrypted_broker_connection_is_reported_on_deployment(wrong: Any, right: Any) -> None:
    """W018, without the URL, which has a password in it."""
    with override_settings(CELERY_BROKER_URL=wrong):
        assert (find_deployment_ids(), find_ids()) == ({"W018"}, set())
        messages = [
            message for message in run_checks(include_deployment_checks=True) if str(message.id).endswith("W018")
        ]
        assert "secret" not in str(messages)
    with override_settings(CELERY_BROKER_URL=wrong, CELERY_BROKER_USE_SSL={"ssl_cert_reqs": 2}):
        assert find_deployment_ids() == set()
    with override_settings(CELERY_BROKER_URL=right):
        assert find_deployment_ids() == set()


FAR_REDIS, FAR_REDIS_TLS = "redis://:secret@192.0.2.1:6379/0", "rediss://:secret@192.0.2.1:6379/0"


def test_g13_unencrypted_result_backend_is_reported_on_deployment() -> None:
    """W018, without the URL."""
    with override_settings(CELERY_RESULT_BACKEND=FAR_REDIS):
        assert (find_deployment_ids(), find_ids()) == ({"W018"}, set())
        text = str(run_checks(include_deployment_checks=True))
        assert ("result backend" in text, "secret" in text) == (True, False)
    with override_settings(CELERY_RESULT_BACKEND=FAR_REDIS, CELERY_REDIS_BACKEND_USE_SSL={"ssl_cert_reqs": 2}):
        assert find_deployment_ids() == set()
    for right in (FAR_REDIS_TLS, "redis://127.0.0.1", "django-db", None):
        with override_settings(CELERY_RESULT_BACKEND=right):
            assert find_deployment_ids() == set()


@pytest.mark.parametrize("variable", ["CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"])
def test_g13_unencrypted_connection_of_the_celery_app_is_reported_on_deployment(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W018: the app may be configured without Django's settings, here by Celery's environment variables."""
    monkeypatch.setenv(variable, FAR_REDIS)
    assert find_deployment_ids() == {"W018"}
    monkeypatch.setenv(variable, FAR_REDIS_TLS)
    assert find_deployment_ids() == set()


REDIS_CACHE = "django.core.cache.backends.redis.RedisCache"
MEMCACHED = "django.core.cache.backends.memcached.PyMemcacheCache"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ((REDIS_CACHE, FAR_REDIS), (REDIS_CACHE, FAR_REDIS_TLS)),
        ((REDIS_CACHE, FAR_REDIS), (REDIS_CACHE, "redis://127.0.0.1:6379")),
        ((REDIS_CACHE, "redis://cache.example.test"), (REDIS_CACHE, "unix:///run/redis.sock")),
        ((REDIS_CACHE, [FAR_REDIS_TLS, FAR_REDIS]), (REDIS_CACHE, [FAR_REDIS_TLS, FAR_REDIS_TLS])),
        ((REDIS_CACHE, f"redis://localhost,{FAR_REDIS}"), (REDIS_CACHE, f"redis://localhost;{FAR_REDIS_TLS}")),
        (("django_redis.cache.RedisCache", FAR_REDIS), ("django_redis.cache.RedisCache", FAR_REDIS_TLS)),
        ((MEMCACHED, "192.0.2.1:11211"), (MEMCACHED, "127.0.0.1:11211")),
        ((MEMCACHED, ["cache.example.test:11211"]), (MEMCACHED, ["unix:/run/memcached.sock", "/run/memcached.sock"])),
    ],
)
@pytest.mark.parametrize("engine", ["cache", "cached_db"])
@pytest.mark.filterwarnings("ignore:Overriding setting CACHES")
def test_g13_sessions_in_a_cache_without_encryption_are_reported_on_deployment(
    engine: str, wrong: tuple[str, Any], right: tuple[str, Any]
) -> None:
    """W051, without the URL. Called directly: other checks load the backends, which are not installed here."""

    def changed(backend: str, location: Any) -> dict[str, Any]:
        cache = {"BACKEND": backend, "LOCATION": location}
        return {
            "SESSION_ENGINE": f"django.contrib.sessions.backends.{engine}",
            "SESSION_CACHE_ALIAS": "sessions",
            "CACHES": {**settings.CACHES, "sessions": cache},
        }

    with override_settings(**changed(*wrong)):
        (message,) = transmission.check_transmission(None)
        assert (str(message.id).endswith(".W051"), "secret" in str(message)) == (True, False)
    with override_settings(**{**changed(*wrong), "SESSION_CACHE_ALIAS": "default"}):
        assert transmission.check_transmission(None) == [], "it is not the cache of the sessions"
    with override_settings(**{**changed(*wrong), "SESSION_ENGINE": "django.contrib.sessions.backends.db"}):
        assert transmission.check_transmission(None) == []
    with override_settings(**changed(*right)):
        assert transmission.check_transmission(None) == []


@pytest.mark.filterwarnings("ignore:Overriding setting CACHES")
def test_g13_sessions_in_memcached_with_tls_are_not_reported() -> None:
    """W051."""
    changed = {"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}
    cache = {"BACKEND": MEMCACHED, "LOCATION": "192.0.2.1:11211"}
    for options, expected in (({}, 1), ({"tls_context": ssl.create_default_context()}, 0)):
        with override_settings(**changed, CACHES={"default": {**cache, "OPTIONS": options}}):
            assert len(transmission.check_transmission(None)) == expected


@pytest.mark.filterwarnings("ignore:Overriding setting CACHES")
def test_g13_sessions_in_a_cache_are_only_reported_on_deployment() -> None:
    """W051."""
    cache = {"default": {"BACKEND": REDIS_CACHE, "LOCATION": FAR_REDIS}}
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache", CACHES=cache):
        assert (find_deployment_ids(), find_ids()) == ({"W051"}, set())


FAR_MAIL = {"EMAIL_BACKEND": f"{MAIL}.smtp.EmailBackend", "EMAIL_HOST": "mail.example.test"}


@pytest.mark.skipif(django.VERSION >= (6, 1), reason="MAILERS of the tests' settings replaces these settings")
@pytest.mark.parametrize(
    "right",
    [
        {"EMAIL_USE_TLS": True},
        {"EMAIL_USE_SSL": True},
        {"EMAIL_HOST": "localhost"},
        {"EMAIL_HOST": "127.0.0.1"},
        {"EMAIL_BACKEND": f"{MAIL}.locmem.EmailBackend"},
    ],
    ids=str,
)
def test_g13_mail_without_encryption_is_reported_on_deployment(right: dict[str, Any]) -> None:
    """W052."""
    with override_settings(**FAR_MAIL):
        assert (find_deployment_ids(), find_ids()) == ({"W052"}, set())
    with override_settings(**{**FAR_MAIL, **right}):
        assert find_deployment_ids() == set()


@pytest.mark.parametrize("right", [{"use_tls": True}, {"use_ssl": True}, {"host": "localhost"}], ids=str)
def test_g13_mail_of_mailers_without_encryption_is_reported_on_deployment(right: dict[str, Any]) -> None:
    """W052: MAILERS of Django 6.1, which the check reads with every version; SMTP is its default."""
    near = {"OPTIONS": {"host": "127.0.0.1"}}
    for wrong in ({}, {"BACKEND": f"{MAIL}.smtp.EmailBackend"}):
        far = {**wrong, "OPTIONS": {"host": "mail.example.test"}}
        with override_settings(MAILERS={"default": near, "alerts": far}):
            assert (find_deployment_ids(), find_ids()) == ({"W052"}, set())
        far["OPTIONS"] |= right
        with override_settings(MAILERS={"default": near, "alerts": far}):
            assert find_deployment_ids() == set()


def test_other_audit_apps_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """W008: an app of that label is enough."""
    installed = apps.is_installed
    monkeypatch.setattr(apps, "is_installed", lambda name: name == "auditlog" or installed(name))
    assert find_ids() == {"W008"}


def test_missing_audit_log_is_reported() -> None:
    """W010, a warning: an error would prevent `migrate --database phi_audit` from creating it."""
    aliases = ["default", "phi_audit"]
    assert find_ids(tags=[Tags.database], databases=aliases) == set()
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {AuditEvent._meta.db_table} RENAME TO away")
    assert find_ids(tags=[Tags.database], databases=aliases) == {"W010"}


def test_unreadable_audit_database_is_reported() -> None:
    """E017, in a new process: this one's connections belong to the tests."""
    run = subprocess.run(
        [sys.executable, "-c", UNREADABLE],
        env={**os.environ, "PHI_TEST_DB": "sqlite", "TEST_DATABASE_NAME_PHI_AUDIT": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == ["django_phi_oidc.E017"], run.stderr


UNREADABLE = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django
django.setup()
from django.core.checks import Tags, run_checks
print(*(message.id for message in run_checks(tags=[Tags.database], databases=["phi_audit"])))
"""


def test_digest_of_an_unconfigured_key_is_reported(django_user_model: Any) -> None:
    """E018."""

    subject = PairwiseSubject.objects.create(
        uuid=randomness.uuid7(clock.now()),
        user=django_user_model.objects.create_user("amina"),
        issuer="https://op.example.test",
        first_seen_at=clock.now(),
        last_seen_at=clock.now(),
    )
    for key in keyring.get_keys("subject"):
        SubjectDigest.objects.create(subject=subject, issuer=subject.issuer, key_id=key.id, digest=key.id)
    assert find_ids(tags=[Tags.database], databases=["default"]) == set()
    with override_settings(**option(KEYS={"subject": settings.PHI_OIDC["KEYS"]["subject"][:1]})()):
        assert find_ids(tags=[Tags.database], databases=["default"]) == {"E018"}


def test_g8_category_without_its_permission_is_reported() -> None:
    """W080."""
    claim = {"purpose": "TREAT", "basis": "calls", "retention": None, "category": "contact"}
    with override_settings(**option(CLAIMS={"phone": claim})()):
        assert find_ids(tags=[Tags.database], databases=["default"]) == {"W080"}
        create_category_permissions(using="default")
        assert find_ids(tags=[Tags.database], databases=["default"]) == set()


def test_g3_local_account_that_is_of_no_use_is_reported(django_user_model: Any) -> None:
    """W061, W062."""

    def find_local_ids() -> set[str]:
        ids = find_ids(tags=[Tags.database], include_deployment_checks=True, databases=["default"])
        return ids & {"W061", "W062"}

    with override_settings(**emergency()()), override_settings(**with_break_glass("amina")()):
        assert find_local_ids() == {"W061"}
        account = django_user_model.objects.create_user("amina", password=None)
        assert find_local_ids() == {"W061"}
        account.set_password("correct horse battery staple")
        account.save()
        assert find_local_ids() == {"W062"}
        account.user_permissions.add(Permission.objects.get(codename="open_emergencyaccess"))
        assert find_local_ids() == set()
        django_user_model.objects.filter(pk=account.pk).update(is_active=False)
        assert find_local_ids() == {"W061"}


def test_user_model_without_required_fields_is_reported() -> None:
    """E025: called directly, because Django's own checks refuse such a user model."""
    with override_settings(**roles(is_staff=True)()):
        assert role_checks.check_role_rules(None) == []
        with override_settings(AUTH_USER_MODEL="auth.Group"):
            messages = role_checks.check_role_rules(None)
    named = {message.msg.split("'")[1] for message in messages if message.id == "django_phi_oidc.E025"}
    assert named == {"groups", "is_active", "is_staff"}


def test_missing_group_of_a_rule_is_reported() -> None:
    """W025."""
    with override_settings(**roles()()):
        assert find_ids(tags=[Tags.database], databases=["default"]) == {"W025"}
        assert find_ids(tags=[Tags.database], databases=["phi_audit"]) == set()
        Group.objects.create(name="clinicians")
        assert find_ids(tags=[Tags.database], databases=["default"]) == set()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"KEYS": {"audit_signing": "no key"}}, {"KEYS": {"audit_signing": SIGNING_PEM}}),
        ({"KEYS": {"audit_signing": RSA_PEM}}, {"KEYS": {"audit_signing": lambda: SIGNING_PEM}}),
        ({"KEYS": {"audit_signing": Path("/nonexistent/key.pem")}}, {"KEYS": {"audit_signing": None}}),
        ({"KEYS": {"audit_public": ["no key"]}}, {"KEYS": {"audit_public": [PUBLIC_KEY]}}),
        ({"KEYS": {"audit_public": 7}}, {"KEYS": {"audit_public": None}}),
        ({"KEYS": {"audit_public": [PUBLIC_KEY, RSA_PEM]}}, {"KEYS": {"audit_public": PUBLIC_KEY}}),
        ({"AUDIT": {"origin": "two words"}}, {"AUDIT": {"origin": "portal.example/audit"}}),
    ],
)
def test_invalid_keys_or_name_of_the_audit_log_are_reported(wrong: dict[str, Any], right: dict[str, Any]) -> None:
    """E022."""
    with override_settings(**option(**wrong)()):
        assert find_ids() == {"E022"}
    with override_settings(**option(**right)()):
        assert find_ids() == set()


def test_signing_key_is_reported_on_deployment() -> None:
    """W019."""
    with override_settings(**option(KEYS={"audit_signing": SIGNING_PEM})()):
        assert (find_deployment_ids(), find_ids()) == ({"W019"}, set())
    with override_settings(**option(KEYS={"audit_public": [PUBLIC_KEY]})()):
        assert find_deployment_ids() == set()


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666], ids=oct)
@pytest.mark.parametrize("ring", ["encryption", "subject", "audit_mac", "pairwise"])
def test_a4_key_file_that_every_user_can_open_is_reported_on_deployment(tmp_path: Path, ring: str, mode: int) -> None:
    """W047."""
    path = tmp_path / "keys"
    path.write_text(keyring.generate_key())
    with override_settings(**option(KEYS={ring: path})()):
        path.chmod(mode)
        assert (find_deployment_ids(), find_ids()) == ({"W047"}, set())
        for safe in (0o600, 0o640):
            path.chmod(safe)
            assert find_deployment_ids() == set()


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o701], ids=oct)
def test_a4_retention_folder_that_every_user_can_open_is_reported_on_deployment(tmp_path: Path, mode: int) -> None:
    """W047."""
    prepare_folder(tmp_path)
    with override_settings(**option(KEYS={"retention": tmp_path})()):
        tmp_path.chmod(mode)
        assert (find_deployment_ids(), find_ids()) == ({"W047"}, set())
        for safe in (0o700, 0o770):
            tmp_path.chmod(safe)
            assert find_deployment_ids() == set()


def test_a4_store_without_the_retention_keys_of_claims_is_reported(tmp_path: Path) -> None:
    """W048."""
    keys, mounted = tmp_path / "keys", tmp_path / "mounted"
    prepare_folder(keys)
    prepare_folder(mounted)
    with override_settings(**option(KEYS={"retention": keys})()):
        Person().store({"address": "Bern"})
        assert find_ids(tags=[Tags.database], databases=["default"]) == set()
    for source in (mounted, None):
        with override_settings(**option(KEYS={"retention": source})()):
            assert find_ids(tags=[Tags.database], databases=["default"]) == {"W048"}
            assert find_ids(tags=[Tags.database], databases=["phi_audit"]) == set()


def test_claims_under_retention_keys_are_reported_without_the_app_that_has_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W048."""
    without_app = [check for check in REGISTERED_CHECKS[Tags.database, False] if ".contrib." not in check.__module__]
    monkeypatch.setitem(REGISTERED_CHECKS, (Tags.database, False), without_app)
    monkeypatch.setattr(claim_key_sources, "_items", [])
    Person().store({"address": "Bern"})
    assert find_ids(tags=[Tags.database], databases=["default"]) == set()
    StoredClaim.objects.update(bucket="20261124-86400")
    assert find_ids(tags=[Tags.database], databases=["default"]) == {"W048"}
    assert find_ids(tags=[Tags.database], databases=["phi_audit"]) == set()


def test_g7_folder_of_another_portal_is_reported_although_it_has_keys_of_the_same_days(tmp_path: Path) -> None:
    """W048."""
    keys, mounted = tmp_path / "keys", tmp_path / "mounted"
    for folder in (keys, mounted):
        prepare_folder(folder)
        RetentionKeyFolder(folder).create("20261124-86400")
    with override_settings(**option(KEYS={"retention": keys})()):
        Person().store({"address": "Bern"})
        assert find_ids(tags=[Tags.database], databases=["default"]) == set()
    with override_settings(**option(KEYS={"retention": mounted})()):
        assert find_ids(tags=[Tags.database], databases=["default"]) == {"W048"}


def test_a4_retention_folder_without_its_marker_is_reported(tmp_path: Path) -> None:
    """E004."""
    (tmp_path / "empty").mkdir(mode=0o700)
    for name in ("empty", "missing"):
        with override_settings(**option(KEYS={"retention": tmp_path / name})()):
            assert find_ids() == {"E004"}
            prepare_folder(tmp_path / name)
            assert (find_deployment_ids(), find_ids()) == (set(), set())


ELSEWHERE = {
    "W016": "contrib/siem/test_checks.py",
    **dict.fromkeys(("E026", "W026"), "contrib/apis/test_declaration.py"),
    **dict.fromkeys(("W020", "W021"), "audit/test_db_privileges.py"),
    **dict.fromkeys(("E036", "W036"), "subjects/test_account_fields.py"),
    **dict.fromkeys(("E055", "E119", "W055", "W057"), "checks/test_assurance.py"),
    **dict.fromkeys(("E086", "E087", "E088", "W086"), "contrib/adoption/test_checks.py"),
    "W087": "../integration/adoption/test_allauth.py",
    "E040": "audit/test_triggers.py",
    "W081": "audit/test_partitions.py",
    **dict.fromkeys(("E106", "W106"), "checks/test_client_certificates.py"),
    **dict.fromkeys(("E160", "E161", "E162"), "checks/test_installed_apps.py"),
    **dict.fromkeys(("E131", "E132", "E133", "W131"), "contrib/federation/test_checks.py"),
    **dict.fromkeys(("E140", "E141"), "audit/checks/test_witnesses.py"),
    **dict.fromkeys(("E150", "E151", "W150"), "contrib/scim/test_checks.py"),
    "W046": "checks/test_logout.py",
    **dict.fromkeys(("E037", "W037"), "checks/test_redirects.py"),
}
"""Ids whose tests need more than settings."""


@pytest.mark.parametrize(("named", "package"), monitoring_checks.METRICS_PACKAGES.items())
def test_metrics_exporter_that_is_not_installed_is_reported(
    named: str, package: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E030."""
    settings.PHI_OIDC = {**settings.PHI_OIDC, "METRICS": [named]}
    assert "E030" not in find_ids()
    monkeypatch.setitem(sys.modules, package, None)
    assert "E030" in find_ids()


def test_email_linking_requires_an_address_and_a_time_of_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    """E091."""
    with override_settings(**email_linking(-1, 1)()):
        assert "E091" not in find_ids()
        monkeypatch.setattr(get_user_model(), "EMAIL_FIELD", "address")
        assert "E091" in find_ids()
    assert "E091" not in find_ids()


def test_storage_of_the_tiles_is_declared(settings: Any, tmp_path: Path) -> None:
    """E142."""
    for declared, is_reported in (("default", False), (tmp_path, False), ("tiles", True)):
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"tiles": declared})
        assert ("E142" in find_ids()) is is_reported


@pytest.mark.parametrize("mode", [0o750, 0o705, None])
def test_export_folder_exists_and_is_private(mode: int | None, settings: Any, tmp_path: Path) -> None:
    """E031."""
    folder = tmp_path / "exports"
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT_EXPORTS=str(folder))
    if mode:
        folder.mkdir()
        folder.chmod(mode)
    assert "E031" in find_ids()
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    assert "E031" not in find_ids()


@pytest.mark.parametrize(
    "patterns", [[], [path("oidc/", include(("django_phi_oidc.urls", "oidc")))]], ids=["missing", "in a namespace"]
)
def test_missing_urls_are_reported_with_the_line_to_paste(patterns: list[Any]) -> None:
    """E070."""
    urls = ModuleType("portal.urls")
    vars(urls).update(urlpatterns=patterns, path=path, include=include)
    with override_settings(ROOT_URLCONF=urls):
        (message,) = [message for message in run_checks() if message.id == "django_phi_oidc.E070"]
        assert ("namespace" in message.msg) is bool(patterns)
        exec(str(message.hint).partition(": ")[2], vars(urls))
        clear_url_caches()
        assert "E070" not in find_ids()
    with override_settings(ROOT_URLCONF=None):
        assert "E070" not in find_ids(tags=[Tags.urls]), "a worker needs no URLs"


@pytest.mark.parametrize("alias", ["default", "phi_audit"])
def test_database_without_triggers_is_reported(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """E071."""
    assert "E071" not in find_ids()
    monkeypatch.setattr(connections[alias], "vendor", "mysql")
    (message,) = [message for message in audit_databases.check_audit_database(None) if message.id.endswith("E071")]
    assert f"DATABASES[{alias!r}] is mysql: the app needs PostgreSQL" in message.msg


def test_every_id_is_tested_here() -> None:
    source = "".join(path.read_text() for path in CHECK_MODULES)
    ids = {f"E{int(n):03}" for n in re.findall(r"\berror\(\s*(\d+)", source)}
    ids |= {f"W{int(n):03}" for n in re.findall(r"\bwarning\(\s*(\d+)", source)}
    ids |= {f"W{number:03}" for number, *_ in core._PROVIDER_WARNINGS}
    tested = set(re.findall(r"\b[EW]\d{3}\b", Path(__file__).read_text()))
    assert ids == tested
    assert all(name in (Path(__file__).parents[1] / file).read_text() for name, file in ELSEWHERE.items())
