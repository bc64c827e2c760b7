"""Failures during a sign-in: no partial sign-in, no loss of another session, and no active token."""

import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache import cache
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import connection, connections
from django.views.debug import ExceptionReporter

from django_phi_oidc import errors
from django_phi_oidc.audit.request_context import SESSION_KEY
from django_phi_oidc.crypto import keyring
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.journeys.attack_cases import OMITTED, tamper_member
from tests.integration.journeys.test_transactions import audit_database_away
from tests.settings import key
from tests.support.http_browser import Browser, InProcessBrowser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)

ENGINES = ["db", "cached_db", "cache", "file"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, settings: Any, tmp_path: Any) -> Iterator[str]:
    """Run with each of Django's server-side session engines."""
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    yield request.param
    cache.clear()


@pytest.fixture
def local_browser(portal: str) -> Browser:
    """A browser in this process, so that it uses the session engine of the test."""
    return InProcessBrowser(portal)


@pytest.fixture
def raise_at_sign_in() -> Iterator[Callable[[BaseException], None]]:
    """Return a function that makes a user_logged_in receiver raise that exception."""
    raised: list[BaseException] = []

    def veto(**kwargs: Any) -> None:
        if raised:
            raise raised[0]

    user_logged_in.connect(veto)
    yield raised.append
    user_logged_in.disconnect(veto)


FAULTS = [PermissionDenied("the host's"), errors.AccountError(errors.Code.USER_INACTIVE), RuntimeError("the host's")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_exception_of_a_receiver_refuses_the_sign_in(
    fault: BaseException,
    engine: str,
    op: DemoProvider,
    local_browser: Browser,
    raise_at_sign_in: Callable[[BaseException], None],
) -> None:
    raise_at_sign_in(fault)
    page = local_browser.sign_in(op)
    assert page.status == (500 if isinstance(fault, RuntimeError) else 403)
    assert local_browser.user() == ""
    assert op.tokens != []
    assert op.active_tokens == []
    assert [event.outcome for event in events(action="login.refused")] == [
        "failure" if isinstance(fault, errors.SignInRefused) else "error"
    ]
    assert events(action="login.succeeded") == []


@pytest.mark.sqlite
def test_suspicious_operation_of_a_receiver_is_logged_and_revokes_the_tokens(
    op: DemoProvider, browser: Browser, raise_at_sign_in: Callable[[BaseException], None]
) -> None:
    """Only a request that Django refuses gets a 400 response without an event: see test_sign_in_failures.py."""
    raise_at_sign_in(SuspiciousOperation("the host's"))
    assert browser.sign_in(op).status == 400
    assert browser.user() == ""
    assert [(event.outcome, event.reason) for event in events(action="login.refused")] == [("error", "internal_error")]
    assert op.tokens != []
    assert op.active_tokens == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_second_sign_in_that_fails_leaves_the_first_unchanged(
    fault: BaseException,
    engine: str,
    op: DemoProvider,
    local_browser: Browser,
    raise_at_sign_in: Callable[[BaseException], None],
) -> None:
    local_browser.sign_in(op)
    first = local_browser.user()
    local_browser.provider_cookies.clear()
    callback = local_browser.get_callback_url(op, "jonas")
    raise_at_sign_in(fault)
    assert local_browser.get(callback).status >= 400
    assert local_browser.user() == first
    assert OIDCSession.objects.get(ended_at=None).user_id == int(first)
    assert {token.grant.account.username for token in op.active_tokens} == {"amina"}


def test_second_sign_in_without_the_audit_database_leaves_the_first_unchanged(
    engine: str, op: DemoProvider, local_browser: Browser
) -> None:
    local_browser.sign_in(op)
    first = local_browser.user()
    local_browser.provider_cookies.clear()
    callback = local_browser.get_callback_url(op, "jonas")
    with audit_database_away():
        assert local_browser.get(callback).status == 503
    assert local_browser.user() == first
    assert {token.grant.account.username for token in op.active_tokens} == {"amina"}


def test_second_sign_in_replaces_the_first_in_every_engine(
    engine: str, op: DemoProvider, local_browser: Browser
) -> None:
    local_browser.sign_in(op)
    first, cookies = local_browser.user(), dict(local_browser.cookies)
    local_browser.provider_cookies.clear()
    local_browser.sign_in(op, "jonas")
    assert local_browser.user() not in ("", first)
    assert InProcessBrowser(local_browser.base_url, cookies).user() == "", "the previous cookie is invalid"
    assert {token.grant.account.username for token in op.active_tokens} == {"jonas"}


def test_logout_ends_the_session_while_the_outbox_cannot_be_flushed(
    engine: str, op: DemoProvider, local_browser: Browser
) -> None:
    local_browser.sign_in(op)
    with reject_statements("DELETE", "phi_oidc_audit_auditoutbox"):
        assert local_browser.post("/oidc/logout/").status == 302
    assert local_browser.user() == ""
    assert op.active_tokens == []


@pytest.mark.parametrize(("audit_database", "status", "live"), [(nullcontext, 302, 2), (audit_database_away, 500, 0)])
def test_session_that_can_be_neither_permitted_nor_ended_leaves_no_active_token(
    audit_database: Callable[[], Any], status: int, live: int, op: DemoProvider, browser: Browser
) -> None:
    callback = browser.get_callback_url(op)
    with audit_database(), reject_statements("UPDATE", "django_phi_oidc_oidcsession"):
        assert browser.get(callback).status == status
    assert (browser.user() != "") is bool(live)
    assert len(op.tokens) == 2
    assert len(op.active_tokens) == live


@pytest.mark.parametrize("value", ["•••", "ü", "\x00", "x" * 200_000])
def test_token_with_unusual_characters_does_not_prevent_revocation(
    value: str, op: DemoProvider, browser: Browser
) -> None:
    def add_token(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "token":
            exchange.reply.json = {**exchange.reply.json, "nested": {"refresh_token": value}, "token_type": "DPoP"}

    op.mutate = add_token
    assert browser.sign_in(op).status in (403, 503)
    assert op.tokens != []
    assert op.active_tokens == []


def test_keyring_failure_during_a_sign_in_leaves_no_active_token(
    op: DemoProvider, settings: Any, browser: Browser
) -> None:
    away: list[bool] = []

    def vault() -> list[str]:
        return [] if away else [key("a key of the vault")]

    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": vault})
    callback = browser.get_callback_url(op)
    op.mutate = lambda endpoint, exchange: away.append(True) if endpoint == "token" else None
    assert browser.get(callback).status == 503
    assert op.tokens != []
    assert op.active_tokens == []


REPLACED = pytest.mark.without_pooler("it ends sessions of the server, which the pooler replaces")


@pytest.mark.postgresql
@pytest.mark.parametrize("refused", [True, pytest.param(False, marks=REPLACED)], ids=["refused", "accepted"])
def test_database_restart_during_the_token_request_leaves_no_active_token(
    refused: bool, op: DemoProvider, browser: Browser
) -> None:
    callback = browser.get_callback_url(op)

    def restart(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "token":
            terminate_backends()
            if refused:
                exchange.reply.json["token_type"] = "DPoP"

    op.mutate = restart
    page = browser.get(callback)
    op.mutate = None
    assert page.status >= 400
    assert browser.user() == ""
    assert op.tokens != []
    assert op.active_tokens == []
    assert OIDCSession.objects.filter(ended_at=None).count() == 0
    assert Browser(browser.base_url).sign_in(op).status == 302


@pytest.mark.parametrize("name", ["phi_oidc_(x", "phi_oidc_é", "__Host-phi_oidc_{}"])
def test_foreign_cookie_with_our_prefix_is_ignored(name: str, op: DemoProvider, browser: Browser) -> None:
    for number in range(6):
        browser.cookies[f"{name}{number}"] = "x"
    assert browser.sign_in(op).status == 302
    assert browser.post("/oidc/logout/").status == 302
    assert op.active_tokens == []


@pytest.mark.parametrize("foreign", ["no uuid", 7, ["x"], {"x": "y"}])
def test_invalid_session_id_in_the_django_session_is_ignored(
    foreign: Any, op: DemoProvider, browser: Browser, settings: Any
) -> None:
    browser.sign_in(op)
    change_session(browser, foreign)
    assert browser.user() != ""
    browser.sign_in(op)
    change_session(browser, foreign)
    assert browser.post("/oidc/logout/").status == 302
    assert browser.user() == ""


def test_logout_omits_a_hint_that_is_too_long(op: DemoProvider, browser: Browser) -> None:
    def lengthen(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            exchange.claims["amr"] = ["x" * 20_000]

    op.mutate = lengthen
    browser.sign_in(op)
    page = browser.post("/oidc/logout/")
    assert (page.status, page.location) == (200, "")
    assert f'href="{op.issuer}/end-session?' in page.body
    assert "id_token_hint" not in page.body
    assert op.active_tokens == []


@pytest.mark.parametrize("path", ["/" + "x" * 511, "/" + "漢" * 56, "/?q=" + "\U0001f642" * 42])
def test_longest_next_url_fits_into_the_cookie(path: str, op: DemoProvider, browser: Browser) -> None:
    browser.start_sign_in(next_url=path)
    ((name, value),) = [item for item in browser.cookies.items() if item[0].startswith("phi_oidc_")]
    assert len(name) + len(value) + len("__Host-") + 100 < 4096
    assert browser.get(browser.get_callback_url(op, next_url=path)).location != "/"


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-16"])
def test_charset_of_a_request_is_ignored(charset: str, op: DemoProvider, browser: Browser) -> None:
    browser.headers = {"Content-Type": f"text/plain; charset={charset}"}
    assert browser.sign_in(op, next_url="/%5Cud800").status == 302


def test_exception_of_a_logout_receiver_leaves_no_active_token(op: DemoProvider, browser: Browser) -> None:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("the host's")

    browser.sign_in(op)
    user_logged_out.connect(fail)
    try:
        assert browser.post("/oidc/logout/").status == 500
    finally:
        user_logged_out.disconnect(fail)
    assert op.active_tokens == []
    assert browser.user() == ""


def test_person_deleted_during_the_sign_in_is_refused(op: DemoProvider, browser: Browser, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Deleting"]
    Browser(browser.base_url).sign_in(op)
    assert browser.sign_in(op).status == 403
    assert events(action="login.refused")[-1].reason == "not_provisioned"
    assert len(op.active_tokens) == 2, "the tokens of the previous session, which does not notice the deletion"


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("in_id_token", "suffix", "status"), [(OMITTED, "", 403), (None, "", 403), ("", "", 403), (None, "2", 302)]
)
def test_sub_that_equals_the_email_in_userinfo_is_refused(
    in_id_token: Any, suffix: str, status: int, op: DemoProvider, browser: Browser
) -> None:
    """An ID Token without an email does not hide it."""

    def share(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            tamper_member("email")(exchange, in_id_token)
        if endpoint == "userinfo":
            tamper_member("email")(exchange, lambda claims: claims["sub"] + suffix)

    op.mutate = share
    assert browser.sign_in(op).status == status
    refusals = [event.reason for event in events(action="login.refused")]
    assert refusals == (["sub_not_pairwise"] if status == 403 else [])
    assert len(op.active_tokens) == (0 if status == 403 else 2)


def test_error_report_shows_neither_sub_nor_claim_nor_token(
    op: DemoProvider, browser: Browser, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Raising"]
    with caplog.at_level(logging.ERROR, "django.request"):
        assert browser.sign_in(op).status == 500
    (failed,) = [record for record in caplog.records if record.name == "django.request"]
    assert failed.exc_info
    request = failed.request  # type: ignore[attr-defined]
    report = ExceptionReporter(request, *failed.exc_info, is_email=True)
    shown = report.get_traceback_html() + report.get_traceback_text() + caplog.text
    assert "error of the host project" in shown.replace("&#x27;", "'"), "the report is about this exception"
    for secret in (op.get_subject("amina", "portal"), "1984-03-09", "Tulegatan", *(token.value for token in op.tokens)):
        assert secret not in shown


@pytest.mark.sqlite
def test_error_report_of_a_sign_in_request_shows_neither_state_nor_nonce(
    op: DemoProvider, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    """The exception is raised after the pushed request, before the state cookie is written."""
    damage_pending_sign_in(browser)
    op.par = "offered"
    with caplog.at_level(logging.ERROR, "django.request"):
        assert browser.start_sign_in().status == 500
    (failed,) = [record for record in caplog.records if record.name == "django.request"]
    assert failed.exc_info
    report = ExceptionReporter(failed.request, *failed.exc_info, is_email=True)  # type: ignore[attr-defined]
    shown = report.get_traceback_html() + report.get_traceback_text() + caplog.text
    assert "in redirect_to_provider" in shown, "the report is about this exception"
    (pushed,) = [request.parameters for request in op.requests if request.path == "/par"]
    for secret in (pushed["state"], pushed["nonce"]):
        assert secret not in shown


DAMAGED_COOKIE = f"phi_oidc_{'0' * 32}"


def damage_pending_sign_in(browser: Browser) -> None:
    """Add a pending sign-in that this app would not write: it causes an unexpected exception in the next one."""
    browser.cookies[DAMAGED_COOKIE] = keyring.encrypt("not JSON", context=["pending sign-in", DAMAGED_COOKIE])


def change_session(browser: Browser, foreign: Any) -> None:
    store = SessionStore(browser.cookies["sessionid"])
    store[SESSION_KEY] = foreign
    store.save()


def terminate_backends() -> None:
    """Terminate every connection to the test database, as a restart does. Runs in a thread of the provider."""
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    finally:
        connections.close_all()


class reject_statements:  # noqa: N801 -- a context manager
    """Make the database reject every INSERT, UPDATE or DELETE on a table."""

    def __init__(self, operation: str, table: str) -> None:
        self.operation, self.table = operation, table

    def __enter__(self) -> None:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(
                    "CREATE FUNCTION refuse_in_test() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'no'; END $$"
                )
                cursor.execute(
                    f"CREATE TRIGGER refuse_in_test BEFORE {self.operation} ON {self.table}"
                    " FOR EACH STATEMENT EXECUTE FUNCTION refuse_in_test()"
                )
            else:
                cursor.execute(
                    f"CREATE TRIGGER refuse_in_test BEFORE {self.operation} ON {self.table}"
                    " BEGIN SELECT RAISE(ABORT, 'no'); END"
                )

    def __exit__(self, *fault: object) -> None:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("DROP FUNCTION refuse_in_test() CASCADE")
            else:
                cursor.execute("DROP TRIGGER refuse_in_test")
