"""`tokens: "discard"`: the tokens of a sign-in are revoked when it completes and never stored."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.errors import TokenExpired
from django_phi_oidc.sessions.access_tokens import get_access_token
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.sessions.tasks import sweep_revocations
from django_phi_oidc.sessions.token_revocation import reset_backoff
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply
from tests.integration.journeys.test_sign_in_faults import reject_statements
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
TOKENS = ("access_token", "refresh_token")


@pytest.fixture
def use(op: DemoProvider, settings: Any) -> Callable[[str], None]:
    """Declare `tokens: "discard"`. Call the result to declare another value."""

    def declare(tokens: str) -> None:
        settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, tokens=tokens)}}

    declare("discard")
    return declare


def revocation_requests(op: DemoProvider) -> Counter[str]:
    """Return the number of revocation requests for each token."""
    return Counter(request.parameters["token"] for request in op.requests if request.path == "/revoke")


def everything_stored() -> str:
    """Return the raw rows of the tables that store tokens."""
    rows = []
    for connection in connections.all():
        with connection.cursor() as cursor:
            for table in ("oidcsession", "pendingrevocation"):
                cursor.execute(f"SELECT * FROM django_phi_oidc_{table}")
                rows += [str(row) for row in cursor.fetchall()]
        if connection.vendor == "sqlite":
            break
    return "\n".join(rows)


def test_discarded_tokens_are_revoked_and_not_stored(
    use: Callable[[str], None], op: DemoProvider, browser: Browser
) -> None:
    assert browser.sign_in(op).status == 302
    session = OIDCSession.objects.get(ended_at=None)
    assert (session.access_token, session.refresh_token, session.access_token_expires_at) == (None, None, None)
    assert session.id_token is not None
    assert op.active_tokens == []
    assert revocation_requests(op) == {token.value: 1 for token in op.tokens}
    rows = PendingRevocation.objects.values_list("token_type_hint", "status", "session", "token")
    assert set(rows) == {(hint, RevocationStatus.DONE, session.pk, None) for hint in TOKENS}
    assert StoredClaim.objects.filter(name="birthdate").exists(), "UserInfo was requested before the revocation"
    assert [event.session for event in events(action="token.revoked")] == [str(session.pk)] * 2
    assert browser.user() != ""
    with pytest.raises(TokenExpired):
        get_access_token(session)


def test_kept_tokens_are_active_and_stored(use: Callable[[str], None], op: DemoProvider, browser: Browser) -> None:
    use("keep")
    browser.sign_in(op)
    session = OIDCSession.objects.get()
    assert session.access_token is not None
    assert session.refresh_token is not None
    assert len(op.active_tokens) == 2
    assert not PendingRevocation.objects.exists()
    assert op.is_token_active(get_access_token(session))


def test_logout_without_tokens_ends_the_session_and_sends_the_hint(
    use: Callable[[str], None], op: DemoProvider, browser: Browser
) -> None:
    browser.sign_in(op)
    page = browser.post("/oidc/logout/")
    assert page.location.startswith(f"{op.issuer}/end-session")
    assert "id_token_hint=" in page.location
    assert [event.detail for event in events(action="session.ended")] == ['{"tokens":0}']
    assert revocation_requests(op) == {token.value: 1 for token in op.tokens}


def test_discarded_tokens_are_queued_while_revocation_fails(
    use: Callable[[str], None], op: DemoProvider, browser: Browser
) -> None:
    op.intercept = lambda endpoint, exchange: Reply(status=503) if endpoint == "revocation" else None
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""
    assert len(op.active_tokens) == 2
    assert set(PendingRevocation.objects.values_list("token_type_hint", "status")) == {
        (hint, RevocationStatus.PENDING) for hint in TOKENS
    }
    assert OIDCSession.objects.get().access_token is None
    assert [token.value for token in op.tokens if token.value in everything_stored()] == []
    op.intercept = None
    reset_backoff(now=clock.now())
    sweep_revocations()
    assert op.active_tokens == []


def test_discarded_tokens_are_revoked_once_if_the_permit_cannot_be_logged(
    use: Callable[[str], None], op: DemoProvider, browser: Browser
) -> None:
    callback = browser.get_callback_url(op)
    with audit_database_away():
        assert browser.get(callback).status == 503
    assert browser.user() == ""
    assert OIDCSession.objects.get().end_reason == "audit_unavailable"
    assert op.active_tokens == []
    assert revocation_requests(op) == {token.value: 1 for token in op.tokens}
    assert len(op.tokens) == 2


def test_discarded_tokens_are_revoked_once_if_the_session_can_be_neither_permitted_nor_ended(
    use: Callable[[str], None], op: DemoProvider, browser: Browser
) -> None:
    callback = browser.get_callback_url(op)
    with audit_database_away(), reject_statements("UPDATE", "django_phi_oidc_oidcsession"):
        assert browser.get(callback).status == 500
    assert browser.user() == ""
    assert op.active_tokens == []
    assert revocation_requests(op) == {token.value: 1 for token in op.tokens}


def test_discarded_tokens_are_revoked_once_if_the_session_cannot_be_created(
    use: Callable[[str], None], op: DemoProvider, browser: Browser
) -> None:
    callback = browser.get_callback_url(op)
    with reject_statements("INSERT", "django_phi_oidc_oidcsession"):
        assert browser.get(callback).status == 500
    assert not OIDCSession.objects.exists()
    assert op.active_tokens == []
    assert revocation_requests(op) == {token.value: 1 for token in op.tokens}


def test_second_sign_in_revokes_kept_and_discarded_tokens_once(
    use: Callable[[str], None], op: DemoProvider, browser: Browser
) -> None:
    use("keep")
    browser.sign_in(op)
    use("discard")
    browser.provider_cookies.clear()
    browser.sign_in(op, "jonas")
    assert op.active_tokens == []
    assert revocation_requests(op) == {token.value: 1 for token in op.tokens}
    assert len(op.tokens) == 4


def test_nested_token_in_a_discarded_response_is_revoked_too(
    use: Callable[[str], None], op: DemoProvider, browser: Browser
) -> None:
    """An accepted response may contain further members."""

    def add_nested_token(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "token":
            exchange.reply.json["nested"] = {"refresh_token": "a nested token"}

    op.mutate = add_nested_token
    assert browser.sign_in(op).status == 302
    assert revocation_requests(op) == {"a nested token": 1, **{token.value: 1 for token in op.tokens}}
