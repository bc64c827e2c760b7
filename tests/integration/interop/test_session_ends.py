"""Each end of a session, with each session store: the provider's tokens are revoked and the session is deleted.

At the npm oidc-provider if it is installed, and at the mock provider in any case.

A test fails for an end reason without a row.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.sessions.models import Session
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit import outbox
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.models import NO_SESSION, StoredClaim
from django_phi_oidc.contrib.individual_rights.own_account import end_other_sessions
from django_phi_oidc.contrib.shared_signals.declaration import SignalsDeclaration
from django_phi_oidc.contrib.shared_signals.event_reception import process_event
from django_phi_oidc.contrib.shared_signals.security_event_token import (
    SESSION_REVOKED,
    SecurityEventToken,
)
from django_phi_oidc.contrib.shared_signals.subject_identifier import EventSubject
from django_phi_oidc.errors import TokenExpired
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions import tasks
from django_phi_oidc.sessions.access_tokens import get_access_token
from django_phi_oidc.sessions.models import EndReason, OIDCSession
from django_phi_oidc.sessions.tasks import end_expired_sessions, end_orphaned_sessions, sweep_revocations
from django_phi_oidc.sessions.token_revocation import revoke_at_provider
from tests.integration.interop.conftest import REFRESHING, Declare, client
from tests.integration.interop.form_login import FormPerson, MockProviderPerson
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.certified_provider import ProviderProcess
from tests.support.example_portal import TLSPortal
from tests.support.mock_provider_process import MockProvider, mock_provider
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events
from tests.support.tls import CertificateAuthority

pytestmark = pytest.mark.django_db(**EVERYTHING)
STORES = ("db", "cached_db", "cache")
IDLE, ABSOLUTE, MINUTE = timedelta(minutes=15), timedelta(hours=8), timedelta(minutes=1)


class Case:
    """A signed-in user, the provider, and the elapsed time, which a row may change."""

    def __init__(self, person: FormPerson, op: ProviderProcess, settings: Any) -> None:
        self.person = person
        self.op = op
        self.settings = settings
        self.elapsed = timedelta()

    @property
    def session(self) -> OIDCSession:
        return OIDCSession.objects.select_related("user", "subject").order_by("started_at")[0]

    @property
    def user(self) -> Any:
        return get_user_model()._default_manager.get(pk=self.session.user_id)

    def configure(self, **options: Any) -> None:
        self.settings.PHI_OIDC = override_phi_oidc(self.settings.PHI_OIDC, **options)


@pytest.fixture(scope="module")
def _mock_provider(authority: CertificateAuthority, certificate: Path) -> Iterator[MockProvider]:
    with mock_provider(certificate=certificate, ca_bundle=authority.certificate_path) as op:
        yield op


@pytest.fixture(params=[pytest.param("_op", marks=pytest.mark.node), "_mock_provider"], ids=["certified", "mock"])
def op(request: pytest.FixtureRequest, portal: str) -> ProviderProcess:
    op: ProviderProcess = request.getfixturevalue(request.param)
    op.configure(client(portal))
    return op


@pytest.fixture(params=STORES)
def case(
    request: pytest.FixtureRequest,
    op: ProviderProcess,
    declare: Declare,
    portal: str,
    _portal: TLSPortal,
    settings: Any,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Case]:
    shared = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)}
    settings.CACHES = {"default": shared}
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    settings.ROOT_URLCONF = "tests.integration.interop.session_ends_urls"
    _portal.application = WSGIHandler()
    monkeypatch.setattr(tasks, "_wait_for_requests", lambda: None)
    backchannel = {
        "backchannel_logout_uri": f"{portal}/oidc/backchannel-logout/",
        "backchannel_logout_session_required": True,
    }
    op.configure(client(portal, **REFRESHING, **backchannel), refresh_unasked=True)
    case = Case(create_person(portal, op), op, settings)
    system = clock.now
    started = system()
    with clock.override_clock(lambda: started + case.elapsed), case.person.web:
        yield case


def create_person(portal: str, op: ProviderProcess) -> FormPerson:
    kind = MockProviderPerson if isinstance(op, MockProvider) else FormPerson
    return kind(portal, op.issuer, op.ca_bundle)


def sign_out(case: Case) -> None:
    assert case.person.post("/oidc/logout/").status_code == 302


def sign_in_again(case: Case) -> None:
    assert "data-user" in case.person.sign_in().text


def come_back_after(elapsed: timedelta) -> Callable[[Case], None]:
    def come_back(case: Case) -> None:
        case.elapsed = elapsed
        assert case.person.get("/portal/").url.endswith("/oidc/logged-out/?expired=1")

    return come_back


def never_come_back(limit: timedelta) -> Callable[[Case], None]:
    """The periodic task has a minute to end the session."""

    def abandon(case: Case) -> None:
        if limit == ABSOLUTE:
            OIDCSession.objects.update(last_seen_at=clock.now() + ABSOLUTE)
        case.elapsed = limit + MINUTE - timedelta(seconds=1)
        assert end_expired_sessions() == 1

    return abandon


def deactivate(case: Case) -> None:
    user = case.user
    user.is_active = False
    user.save()


def deactivate_without_signal(case: Case) -> None:
    get_user_model()._default_manager.update(is_active=False)
    assert end_orphaned_sessions() == 1


def change_password(case: Case) -> None:
    user = case.user
    user.set_password("another")
    user.save()


def change_roles(case: Case) -> None:
    case.configure(SESSIONS={"end_on": ["roles"]})
    case.user.groups.add(Group.objects.create(name="clinicians"))


def end_by_command(case: Case) -> None:
    call_command("phi_oidc", "sessions", "end", str(case.session.pk))


def end_from_another_device(case: Case) -> None:
    actor = Actor(user=case.user, origin=Origin(actor=str(case.user.pk)))
    assert end_other_sessions(actor, session_id=case.session.pk, now=clock.now()) == 1


def exceed_the_limit(case: Case) -> None:
    case.configure(SESSIONS={"max_parallel": 1})
    other = create_person(case.person.portal, case.op)
    later = clock.now() + timedelta(seconds=1)
    with other.web, clock.override_clock(lambda: later):
        assert "data-user" in other.sign_in().text


def sign_out_at_the_provider(case: Case) -> None:
    """The provider calls our back-channel endpoint before it responds."""
    assert case.person.sign_out_at_the_provider().status_code == 200


def load_the_front_channel(case: Case) -> None:
    """The provider does not support front-channel logout, so the test requests the URL itself."""
    sid = json.loads(opened(case.session, "id_token_claims"))["sid"]
    url = f"{case.person.portal}/oidc/frontchannel-logout/"
    answer = case.person.web.get(url, params={"iss": case.op.issuer, "sid": sid}, timeout=20)
    assert (answer.status_code, answer.content) == (200, b"")


def receive_security_event(case: Case) -> None:
    """Neither provider pushes this event to the portal, so the test processes a verified one."""
    sub, now = json.loads(opened(case.session, "id_token_claims"))["sub"], clock.now()
    event = SecurityEventToken(
        iss=case.op.issuer,
        jti="a-jti",
        event_type=SESSION_REVOKED,
        event={},
        subject=EventSubject(sub=sub),
        occurred_at=now,
        valid_until=now + MINUTE,
    )
    context: Any = {"declaration": conf.providers()["default"], "signals": SignalsDeclaration(delivery="push")}
    assert len(process_event(event, **context, origin=Origin(), now=now)) == 1


def opened(session: OIDCSession, column: str) -> str:
    field: Any = OIDCSession._meta.get_field(column)
    return str(field.decrypt(session))


def refresh_revoked_grant(case: Case) -> None:
    """The refresh token was revoked at the provider."""
    token = ReceivedToken(token_type_hint="refresh_token", value=opened(case.session, "refresh_token"))
    assert not revoke_at_provider(token, provider_name="default", now=clock.now(), timeout_seconds=5).error_code
    refresh(case)


def refresh(case: Case) -> None:
    OIDCSession.objects.update(access_token_expires_at=clock.now())
    with pytest.raises(TokenExpired):
        get_access_token(case.session.pk)


def refresh_for_another(case: Case) -> None:
    """Change the stored sub, so that the refreshed ID Token does not match."""
    session = case.session
    claims = json.loads(opened(session, "id_token_claims"))
    session.id_token_claims = json.dumps({**claims, "sub": "another"})
    session.save(update_fields=["id_token_claims"])
    refresh(case)


SESSION_ENDS: Mapping[str, Callable[[Case], None]] = {
    "logout": sign_out,
    "django_logout": lambda case: case.person.get("/leave/"),
    "replaced": sign_in_again,
    "session_lost": lambda case: case.person.get("/flush/"),
    "session_lost, abandoned": lambda case: (
        import_module(case.settings.SESSION_ENGINE).SessionStore().delete(case.person.session_key),
        end_orphaned_sessions(),
    ),
    "subject_unlinked": lambda case: case.session.subject.delete(),
    "idle_timeout": come_back_after(IDLE),
    "idle_timeout, abandoned": never_come_back(IDLE),
    "absolute_timeout": come_back_after(ABSOLUTE),
    "absolute_timeout, abandoned": never_come_back(ABSOLUTE),
    "user_inactive": deactivate,
    "user_inactive, without a signal": deactivate_without_signal,
    "password_changed": change_password,
    "roles_changed": change_roles,
    "administrator": end_by_command,
    "account_owner": end_from_another_device,
    "parallel_limit": exceed_the_limit,
    "backchannel_logout": sign_out_at_the_provider,
    "frontchannel_logout": load_the_front_channel,
    "security_event": receive_security_event,
    "invalid_grant": refresh_revoked_grant,
    "refresh_mismatch": refresh_for_another,
}
"""The end reason, and a variant after a comma. `audit_unavailable` and `row_deleted` have separate tests."""


def test_every_end_reason_has_a_row() -> None:
    elsewhere = {"audit_unavailable", "row_deleted"}
    assert {end.partition(",")[0] for end in SESSION_ENDS} | elsewhere == set(EndReason.values)


@pytest.mark.parametrize("end", SESSION_ENDS)
def test_end_of_a_session_revokes_tokens_and_deletes_the_session(case: Case, end: str) -> None:
    assert "data-user" in case.person.sign_in().text
    session, key = case.session, case.person.session_key
    issued = [value for _, value in case.op.tokens()]
    assert [kind for kind, _ in case.op.tokens()] == ["access_token", "refresh_token"]
    assert case.op.active_kinds() == ["access_token", "refresh_token"]
    assert StoredClaim.objects.filter(session=session.pk).exists()
    assert session_exists(case, key)
    SESSION_ENDS[end](case)
    # Tokens that were not revoked in the request are queued and due.
    case.elapsed += timedelta(seconds=1)
    sweep_revocations()
    assert not [token for token in issued if case.op.introspect(token)["active"]]
    assert not session_exists(case, key)
    assert not StoredClaim.objects.filter(session=session.pk).exists()
    session = OIDCSession.objects.get(pk=session.pk)
    assert (session.end_reason, session.access_token, session.refresh_token) == (end.partition(",")[0], None, None)
    (event,) = events(action="session.ended", session=str(session.pk))
    assert event.reason == session.end_reason


def session_exists(case: Case, key: str) -> bool:
    return bool(import_module(case.settings.SESSION_ENGINE).SessionStore().exists(key))


def test_sign_in_that_cannot_be_logged_leaves_no_token_and_no_session(case: Case) -> None:
    with audit_database_away():
        assert case.person.sign_in().status_code == 503
    assert [kind for kind, _ in case.op.tokens()] == ["access_token", "refresh_token"]
    sweep_revocations()
    assert case.op.active_kinds() == []
    session = OIDCSession.objects.get()
    assert (session.end_reason, session.access_token, session.refresh_token) == ("audit_unavailable", None, None)
    assert not StoredClaim.objects.exclude(session=NO_SESSION).exists()
    assert case.person.session_key == ""
    assert count_sessions(case) == (0, 0)
    assert events(action="session.ended") == []
    outbox.flush()
    (event,) = events(action="session.ended")
    assert (event.session, event.reason) == (str(session.pk), "audit_unavailable")
    another = create_person(case.person.portal, case.op)
    with another.web:
        assert "data-user" in another.sign_in().text
    engine = case.settings.SESSION_ENGINE.rpartition(".")[2]
    assert count_sessions(case) == {"db": (1, 0), "cached_db": (1, 1), "cache": (0, 1)}[engine]


def count_sessions(case: Case) -> tuple[int, int]:
    """Return the number of sessions in the database and in the cache, which contains only sessions."""
    cache = Path(case.settings.CACHES["default"]["LOCATION"])
    return Session.objects.count(), len(list(cache.glob("*.djcache")))
