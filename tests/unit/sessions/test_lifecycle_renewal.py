"""A new sign-in of the same person replaces the tokens of a session."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import CiphertextInvalid, KeyMissing
from django_phi_oidc.oidc.token import TokenResponse
from django_phi_oidc.sessions.digests import compute_token_digest
from django_phi_oidc.sessions.lifecycle import end_session, renew_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from django_phi_oidc.sessions.token_revocation import is_revoked
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import ACCESS_TOKEN, NOW, REFRESH_TOKEN, SignedIn, events, id_token, keep

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def renew(
    signed_in: SignedIn, *, refresh_token: str = "new refresh token", persist_tokens: bool = True
) -> tuple[uuid.UUID, ...] | None:
    return renew_session(
        signed_in.session.pk,
        subject_id=signed_in.subject.pk,
        tokens=TokenResponse(
            access_token="new access token",
            refresh_token=refresh_token,
            id_token=id_token(),
            expires_in=timedelta(minutes=5),
            lifetime_alert=False,
        ),
        id_token=keep(id_token()),
        sid="sid-2",
        acr="mfa",
        auth_time=NOW,
        persist_tokens=persist_tokens,
        origin=Origin(),
        now=NOW,
    )


def queued_tokens() -> dict[str, str]:
    return {row.token_type_hint: row.decrypt_token() for row in PendingRevocation.objects.all()}


def use_other_keys(settings: Any, *keys: str) -> Any:
    """Return the settings before."""
    before = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"encryption": list(keys)})
    return before


def test_renewal_queues_replaced_tokens(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    assert renew(signed_in) == ()
    assert OIDCSession.objects.get().decrypt("refresh_token") == "new refresh token"
    assert queued_tokens() == {"refresh_token": REFRESH_TOKEN, "access_token": ACCESS_TOKEN}
    assert events(Action.ALERT_RAISED) == []


def test_replaced_and_new_access_token_are_known_as_revoked_after_the_end(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    renew(signed_in)
    tokens = (ACCESS_TOKEN, "new access token")
    assert not any(is_revoked(token, now=NOW) for token in tokens)
    end_session(signed_in.session.pk, EndReason.SESSION_LOST, origin=Origin(), now=NOW)
    assert all(is_revoked(token, now=NOW) for token in tokens)


@pytest.mark.parametrize("persist_tokens", [True, False])
def test_renewal_stores_the_new_tokens_and_their_digest_or_revokes_them(
    sign_in: Callable[..., SignedIn], *, persist_tokens: bool
) -> None:
    revocation_ids = renew(sign_in(), persist_tokens=persist_tokens)
    row = OIDCSession.objects.get()
    digest = compute_token_digest("new access token") if persist_tokens else None
    assert (row.access_token_digest, row.access_token is not None) == (digest, persist_tokens)
    assert len(revocation_ids or ()) == (0 if persist_tokens else 2)
    assert is_revoked("new access token", now=NOW) is not persist_tokens


def test_a3_renewal_with_an_old_key_list_queues_the_ciphertexts_and_raises_an_alert(
    sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    signed_in, old = sign_in(), keyring.generate_key()
    with_keys = use_other_keys(settings, old)
    assert renew(signed_in) == ()
    assert OIDCSession.objects.get().decrypt("refresh_token") == "new refresh token"
    (alert,) = events(Action.ALERT_RAISED)
    assert (alert.reason, alert.detail) == ("key_missing", '{"count":1,"rule":"encryption_key_missing"}')
    settings.PHI_OIDC = with_keys
    assert queued_tokens() == {"refresh_token": REFRESH_TOKEN, "access_token": ACCESS_TOKEN}


def test_a3_renewal_of_a_session_with_a_damaged_token_raises_an_alert(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_phi_oidc_oidcsession SET refresh_token = 'damaged'")
    assert renew(signed_in) == ()
    rows = {row.token_type_hint: row for row in PendingRevocation.objects.all()}
    assert rows["access_token"].decrypt_token() == ACCESS_TOKEN
    with pytest.raises(CiphertextInvalid):
        rows["refresh_token"].decrypt_token()
    assert [event.detail for event in events(Action.ALERT_RAISED)] == ['{"rule":"session_undecryptable"}']


def test_a3_renewal_without_any_key_changes_nothing(sign_in: Callable[..., SignedIn], settings: Any) -> None:
    signed_in = sign_in()
    with_keys = use_other_keys(settings)
    with pytest.raises(KeyMissing):
        renew(signed_in)
    settings.PHI_OIDC = with_keys
    assert OIDCSession.objects.get().decrypt("refresh_token") == REFRESH_TOKEN
    assert not PendingRevocation.objects.exists()
