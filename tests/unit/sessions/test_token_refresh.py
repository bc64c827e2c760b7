"""The steps of a refresh: lease, stored tokens and tokens to revoke. For the request see test_access_tokens.py."""

import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, connections, transaction

from django_phi_oidc import errors
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import TokenError, Undecryptable
from django_phi_oidc.oidc.token import ReceivedToken, TokenResponse
from django_phi_oidc.sessions.kept_id_token import KeptIDToken
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from django_phi_oidc.sessions.token_refresh import (
    LEASE_DURATION,
    REFRESH_MARGIN,
    RefreshLease,
    RefreshResult,
    acquire_lease,
    find_end_reason,
    find_session_with_tokens,
    get_live_access_token,
    is_refresh_due,
    release_lease,
    store_tokens,
)
from django_phi_oidc.sessions.token_revocation import is_revoked
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import ACCESS_TOKEN, NOW, REFRESH_TOKEN, SignedIn, id_token

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

NEW = (
    ReceivedToken(token_type_hint="refresh_token", value="new-refresh-token"),
    ReceivedToken(token_type_hint="access_token", value="new-access-token"),
)
SECOND = timedelta(seconds=1)


@pytest.fixture
def session(sign_in: Callable[..., SignedIn]) -> OIDCSession:
    """Return the row of a session whose access token expires at NOW."""
    OIDCSession.objects.filter(pk=sign_in().session.pk).update(access_token_expires_at=NOW)
    return row()


def row() -> OIDCSession:
    return OIDCSession.objects.get()


def opened(*columns: str) -> list[str | None]:
    actual = row()
    return [OIDCSession._meta.get_field(column).decrypt(actual) for column in columns]


def end(session: OIDCSession) -> None:
    assert end_session(session.pk, EndReason.LOGOUT, origin=Origin(), now=NOW)


def lease_of(session: OIDCSession, now: datetime = NOW) -> RefreshLease:
    lease = acquire_lease(session, now=now)
    assert lease is not None
    return lease


def refreshed(
    refresh_token: str = "new-refresh-token",
    new_id_token: str = "",
    access_token: str = "new-access-token",
    expires_at: datetime = NOW + timedelta(minutes=5),
) -> RefreshResult:
    tokens = TokenResponse(
        access_token=access_token,
        id_token=new_id_token,
        refresh_token=refresh_token,
        expires_in=timedelta(minutes=5),
        lifetime_alert=False,
    )
    kept = KeptIDToken(claims={}, token=new_id_token)
    return RefreshResult(tokens=tokens, access_token_expires_at=expires_at, id_token=kept)


def store(lease: RefreshLease, result: RefreshResult, *, new_tokens: Sequence[ReceivedToken]) -> list[ReceivedToken]:
    return store_tokens(lease, result, new_tokens=new_tokens, origin=Origin(), now=NOW)


@pytest.mark.parametrize(
    ("expires_at", "refresh_token", "due"),
    [
        (NOW + REFRESH_MARGIN, REFRESH_TOKEN, True),
        (NOW + REFRESH_MARGIN + SECOND, REFRESH_TOKEN, False),
        (NOW - SECOND, REFRESH_TOKEN, True),
        (NOW - SECOND, None, False),
        (None, REFRESH_TOKEN, False),
    ],
)
def test_refresh_is_due_when_the_token_expires_soon_and_can_be_refreshed(
    expires_at: datetime | None, refresh_token: str | None, due: bool
) -> None:
    session = OIDCSession(pk=uuid.uuid4(), access_token_expires_at=expires_at, refresh_token=refresh_token)
    assert is_refresh_due(session, now=NOW) is due


def test_live_access_token_is_the_stored_one_until_it_expires(session: OIDCSession) -> None:
    assert get_live_access_token(session, now=NOW - SECOND) == ACCESS_TOKEN
    assert get_live_access_token(session, now=NOW) == ""
    session.access_token_expires_at = None
    assert get_live_access_token(session, now=NOW + timedelta(days=1)) == ACCESS_TOKEN
    session.access_token = None  # type: ignore[assignment]  # the stubs do not know that it may be
    assert get_live_access_token(session, now=NOW) == ""


def test_find_session_with_tokens_finds_only_live_sessions(session: OIDCSession) -> None:
    assert find_session_with_tokens(session.pk) == session
    end(session)
    assert find_session_with_tokens(session.pk) is None
    assert find_session_with_tokens(uuid.uuid4()) is None


def test_acquired_lease_is_committed_and_exclusive_until_it_expires(session: OIDCSession) -> None:
    lease = lease_of(session)
    assert row().refresh_lease_until == lease.expires_at == NOW + LEASE_DURATION
    assert (lease.refresh_token, lease.access_token, lease.id_token) == (REFRESH_TOKEN, ACCESS_TOKEN, id_token())
    assert acquire_lease(session, now=NOW + LEASE_DURATION - SECOND) is None
    assert lease_of(session, NOW + LEASE_DURATION).expires_at == NOW + 2 * LEASE_DURATION


def test_repr_of_a_lease_shows_no_token(session: OIDCSession) -> None:
    assert "canary" not in repr(lease_of(session))
    assert "new-" not in repr(refreshed())


def test_acquire_lease_of_an_ended_session_is_none(session: OIDCSession) -> None:
    end(session)
    assert acquire_lease(session, now=NOW) is None


def test_acquire_lease_of_refreshed_tokens_is_none(session: OIDCSession) -> None:
    assert store(lease_of(session), refreshed(), new_tokens=NEW) == []
    assert acquire_lease(session, now=NOW + LEASE_DURATION) is None
    assert acquire_lease(row(), now=NOW + LEASE_DURATION) is not None


def test_acquire_lease_inside_a_transaction_is_refused(session: OIDCSession) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        acquire_lease(session, now=NOW)
    assert row().refresh_lease_until is None


def test_acquire_lease_without_the_key_leaves_no_lease(session: OIDCSession, settings: Any) -> None:
    before = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"encryption": [keyring.generate_key()]})
    with pytest.raises(Undecryptable):
        acquire_lease(session, now=NOW)
    assert row().refresh_lease_until is None
    settings.PHI_OIDC = before
    assert acquire_lease(session, now=NOW) is not None


def test_one_of_ten_concurrent_callers_acquires_the_lease(session: OIDCSession) -> None:
    barrier, leases = threading.Barrier(10), []

    def work() -> None:
        barrier.wait()
        try:
            leases.append(acquire_lease(session, now=NOW))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases) == 10
    assert len([lease for lease in leases if lease]) == 1


@pytest.mark.postgresql
def test_acquire_lease_of_a_locked_row_does_not_wait(session: OIDCSession) -> None:
    leases: list[RefreshLease | None] = []

    def work() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '1s'")
        try:
            leases.append(acquire_lease(session, now=NOW))
        finally:
            connections.close_all()

    for hold in (True, False):
        with transaction.atomic():
            list(OIDCSession.objects.select_for_update()) if hold else None
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    assert [lease is not None for lease in leases] == [False, True]


def test_store_tokens_stores_the_tokens_and_releases_the_lease(session: OIDCSession) -> None:
    assert store(lease_of(session), refreshed(new_id_token="a.new.one"), new_tokens=NEW) == []
    assert opened("refresh_token", "access_token", "id_token") == ["new-refresh-token", "new-access-token", "a.new.one"]
    assert (row().access_token_expires_at, row().refresh_lease_until) == (NOW + timedelta(minutes=5), None)
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM django_phi_oidc_oidcsession")
        assert "new-" not in str(cursor.fetchall())


def test_store_tokens_with_only_an_access_token_keeps_the_others(session: OIDCSession) -> None:
    assert store(lease_of(session), refreshed(refresh_token=""), new_tokens=NEW[1:]) == []
    assert opened("refresh_token", "access_token", "id_token") == [REFRESH_TOKEN, "new-access-token", id_token()]
    assert not is_revoked("new-access-token", now=NOW)
    end(session)
    assert is_revoked("new-access-token", now=NOW)


@pytest.mark.parametrize("is_expired", [False, True])
def test_s5_replaced_access_token_is_revoked_when_the_session_ends(is_expired: bool, session: OIDCSession) -> None:
    if is_expired:
        OIDCSession.objects.update(access_token_expires_at=NOW - timedelta(minutes=5))
    store(lease_of(row()), refreshed(), new_tokens=NEW)
    assert queued() == [] if is_expired else [ACCESS_TOKEN]
    assert not PendingRevocation.objects.due(NOW).exists(), "it could end the session at the provider"
    assert not is_revoked(ACCESS_TOKEN, now=NOW)
    end(session)
    assert PendingRevocation.objects.due(NOW).count() == len(queued())
    expected = {"new-refresh-token", "new-access-token"}
    if not is_expired:
        expected.add(ACCESS_TOKEN)
    assert set(queued()) == expected


def test_s5_replaced_access_tokens_of_many_refreshes_are_dropped_when_they_have_expired(session: OIDCSession) -> None:
    replaced = []
    for count in range(4):
        now = NOW + count * timedelta(minutes=5)
        lease = acquire_lease(row(), now=now)
        assert lease
        replaced.append(lease.access_token)
        result = refreshed(access_token=f"access-{count}", expires_at=now + timedelta(minutes=5))
        assert store_tokens(lease, result, new_tokens=NEW, origin=Origin(), now=now) == []
        assert queued() == [replaced[-1]]


def test_s5_same_access_token_is_not_queued(session: OIDCSession) -> None:
    store(lease_of(session), refreshed(access_token=ACCESS_TOKEN), new_tokens=NEW[:1])
    assert queued() == []


def queued() -> list[str]:
    """Return the tokens that wait for their revocation."""
    return [pending.decrypt_token() for pending in PendingRevocation.objects.order_by("due_at")]


@pytest.mark.parametrize("with_lease", [False, True])
def test_store_tokens_of_an_ended_session_returns_all_for_revocation(with_lease: bool, session: OIDCSession) -> None:
    lease = lease_of(session)
    end(session)
    if with_lease:
        OIDCSession.objects.update(refresh_lease_until=lease.expires_at)
    assert store(lease, refreshed(), new_tokens=NEW) == list(NEW)
    assert opened("refresh_token", "access_token", "id_token") == [None, None, None]


def test_store_tokens_after_another_caller_acquired_the_lease_stores_nothing(session: OIDCSession) -> None:
    late = lease_of(session)
    lease_of(session, NOW + LEASE_DURATION)
    assert store(late, refreshed(), new_tokens=NEW) == list(NEW)
    assert opened("refresh_token", "access_token") == [REFRESH_TOKEN, ACCESS_TOKEN]
    assert row().refresh_lease_until == NOW + 2 * LEASE_DURATION, "the other's lease is the other's"


def test_store_tokens_after_another_caller_stored_the_same_tokens_revokes_none(session: OIDCSession) -> None:
    late = lease_of(session)
    store(lease_of(session, NOW + LEASE_DURATION), refreshed(), new_tokens=NEW)
    third = ReceivedToken(token_type_hint="access_token", value="a third one")
    assert store(late, refreshed(), new_tokens=[*NEW, third]) == [third]


def test_store_tokens_after_an_expired_lease_that_is_free_stores_them(session: OIDCSession) -> None:
    lease = lease_of(session, NOW - 10 * LEASE_DURATION)
    assert store(lease, refreshed(), new_tokens=NEW) == []
    assert opened("access_token") == ["new-access-token"]


def test_release_lease_releases_only_the_own_lease(session: OIDCSession) -> None:
    late = lease_of(session)
    other = lease_of(session, NOW + LEASE_DURATION)
    release_lease(late)
    assert row().refresh_lease_until == other.expires_at
    release_lease(other)
    assert row().refresh_lease_until is None
    assert opened("refresh_token", "access_token") == [REFRESH_TOKEN, ACCESS_TOKEN]


MISMATCHES = [
    errors.RefreshMismatch(),
    errors.KeyNotFound(),
    *(errors.IDTokenError(code) for code in errors.Code if code.rule == "R6"),
]


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        *((refusal, EndReason.REFRESH_MISMATCH) for refusal in MISMATCHES),
        (TokenError(status=400, error="invalid_grant"), EndReason.INVALID_GRANT),
        (TokenError(status=401, error="invalid_grant"), EndReason.INVALID_GRANT),
        (TokenError(status=500, error="invalid_grant"), None),
        (TokenError(status=401, error="invalid_client"), None),
        (TokenError(status=400, error="unauthorized_client"), None),
        (TokenError(status=400), None),
        *((errors.TransportError(code), None) for code in errors.Code if code.rule == "R1"),
        *(
            (errors.MetadataError(code), None)
            for code in errors.Code
            if code.rule == "R2" and code is not errors.Code.KEY_NOT_FOUND
        ),
        *(
            (errors.TokenResponseError(code), None)
            for code in errors.Code
            if code.rule == "R5" and code is not errors.Code.TOKEN_ERROR
        ),
        (errors.KeyNotFound(is_certain=False), None),
        (errors.AccountError(errors.Code.PROVIDER_UNKNOWN), None),
    ],
    ids=lambda value: f"{value.code}-{vars(value)}" if isinstance(value, Exception) else str(value),
)
def test_end_reason_of_each_refusal(refusal: Any, reason: EndReason | None) -> None:
    assert find_end_reason(refusal) is reason
