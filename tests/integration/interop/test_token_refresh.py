"""Access tokens refreshed at the npm oidc-provider, which rotates refresh tokens."""

import threading
import uuid
from datetime import timedelta

import pytest
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.errors import TokenExpired
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions.access_tokens import get_access_token
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.sessions.token_revocation import revoke_at_provider
from tests.integration.interop.browser_user import Person
from tests.integration.interop.conftest import REFRESHING, Declare, client
from tests.support.certified_provider import CertifiedProvider
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.node, pytest.mark.browser, pytest.mark.django_db(**EVERYTHING)]


@pytest.fixture
def session(op: CertifiedProvider, portal: str, person: Person) -> uuid.UUID:
    """Return the id of a new session with a refresh token and an expired access token."""
    op.configure(client(portal, **REFRESHING), refresh_unasked=True)
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()
    expire()
    return OIDCSession.objects.get().pk


def expire() -> None:
    OIDCSession.objects.update(access_token_expires_at=clock.now() - timedelta(seconds=1))


def opened(column: str) -> str:
    return str(OIDCSession._meta.get_field(column).decrypt(OIDCSession.objects.get()))


def is_active(op: CertifiedProvider, token: str) -> bool:
    return bool(op.introspect(token)["active"])


def test_refreshed_tokens_are_revoked_with_the_session(
    op: CertifiedProvider, person: Person, session: uuid.UUID
) -> None:
    used = []
    for _ in range(2):
        expire()
        used.append(opened("refresh_token"))
        assert is_active(op, get_access_token(session))
        assert is_active(op, opened("refresh_token"))
    assert [is_active(op, token) for token in used] == [False, False]
    assert op.requests("/token") == 3
    assert op.requests("/token/revocation") == 0
    person.page.click("text=Sign out")
    assert person.provider_heading() == "Sign out here as well?"
    assert "id_token_hint=" in person.page.url, "the newest ID Token is sent as the hint"
    assert (len(op.tokens()), op.active_kinds()) == (6, [])


def test_refresh_of_a_revoked_grant_ends_the_session(op: CertifiedProvider, session: uuid.UUID) -> None:
    assert get_access_token(session)
    token = ReceivedToken(token_type_hint="refresh_token", value=opened("refresh_token"))
    assert revoke_at_provider(token, provider_name="default", now=clock.now(), timeout_seconds=8).error_code == ""
    expire()
    with pytest.raises(TokenExpired):
        get_access_token(session)
    assert [event.reason for event in events(action="session.ended")] == ["invalid_grant"]
    assert op.active_kinds() == []
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {RevocationStatus.DONE}


def test_ten_concurrent_refreshes_send_one_request(op: CertifiedProvider, session: uuid.UUID) -> None:
    barrier, tokens = threading.Barrier(10), []

    def call() -> None:
        barrier.wait()
        try:
            tokens.append(get_access_token(session))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=call) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokens == [opened("access_token")] * 10
    assert op.requests("/token") == 2
    assert is_active(op, tokens[0])


def test_discarded_tokens_are_revoked_before_the_sign_in_completes(
    op: CertifiedProvider, portal: str, person: Person, declare: Declare
) -> None:
    op.configure(client(portal, **REFRESHING), refresh_unasked=True)
    declare(default={"tokens": "discard"})
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()
    assert (len(op.tokens()), op.active_kinds()) == (2, [])
    session = OIDCSession.objects.get()
    assert (session.access_token, session.refresh_token) == (None, None)
    person.page.click("text=Sign out")
    assert person.provider_heading() == "Sign out here as well?"
