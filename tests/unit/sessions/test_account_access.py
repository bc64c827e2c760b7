"""Access ends from outside: sessions, tokens, codes and claims, with the events of the change, or nothing at all."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.errors import KeyMissing
from django_phi_oidc.sessions.account_access import disable_account, enable_account, end_access
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    ScriptedOP,
    SignedIn,
    django_session_exists,
    events,
    waiting,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
ORIGIN = Origin(actor="scim:hr", client_ip="192.0.2.7", request_id="r")


def create_code(signed_in: SignedIn) -> ActivationCode:
    now = clock.now()
    return ActivationCode.objects.create(
        user_id=signed_in.user.pk,
        provider="default",
        key_id="k",
        digest="d",
        created_at=now,
        created_by="1",
        expires_at=now + timedelta(days=1),
        binding="b",
    )


def build_cause(**fields: Any) -> NewEvent:
    return NewEvent(action=Action.SESSION_END_REQUESTED, origin=ORIGIN, now=clock.now(), **fields)


def test_disabled_account_has_no_session_token_code_or_claim(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    code = create_code(signed_in)
    assert disable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now(), events=[build_cause()])
    signed_in.user.refresh_from_db()
    code.refresh_from_db()
    assert not signed_in.user.is_active
    assert OIDCSession.objects.get().end_reason == EndReason.USER_INACTIVE
    assert not django_session_exists(signed_in.django_key)
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {"done"}
    assert code.revoked_at is not None
    assert not StoredClaim.objects.exists()


def test_each_event_has_the_client_as_actor(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    create_code(signed_in)
    disable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now(), events=[build_cause()])
    recorded = {
        action: [event.actor for event in events(action)]
        for action in (
            *(Action.SESSION_END_REQUESTED, Action.SESSION_ENDED, Action.ACTIVATION_REVOKED, Action.ROLE_CHANGED),
            Action.CLAIM_SCRUBBED,
        )
    }
    assert {actor for actors in recorded.values() for actor in actors} == {"scim:hr"}
    assert all(recorded.values())
    (change,) = events(Action.ROLE_CHANGED)
    assert json.loads(change.detail) == {"withdrawn": ["is_active"]}


def test_deactivation_by_other_code_revokes_the_code_too(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    code = create_code(signed_in)
    signed_in.user.save()
    code.refresh_from_db()
    assert code.revoked_at is None
    signed_in.user.is_active = False
    signed_in.user.save()
    code.refresh_from_db()
    assert code.revoked_at is not None
    assert OIDCSession.objects.get().end_reason == EndReason.USER_INACTIVE


def test_next_request_of_a_disabled_account_is_refused(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    client, name = signed_in.client(), signed_in.user.get_username()
    assert client.get("/open_page/").content.decode() == f"for {name}"
    disable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now())
    assert name not in client.get("/open_page/").content.decode()


def test_access_is_ended_without_deactivation(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    ended = end_access(signed_in.user.pk, EndReason.BACKCHANNEL_LOGOUT, origin=ORIGIN, now=clock.now())
    signed_in.user.refresh_from_db()
    assert (ended, signed_in.user.is_active, len(op.asked)) == (1, True, 2)
    assert list(StoredClaim.objects.values_list("name", flat=True)) == ["address"], "It has a retention of its own."


def test_repeated_end_does_nothing(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    for was_active in (True, False):
        assert disable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now()) is was_active
    assert len(op.asked) == 2
    assert len(events(Action.SESSION_ENDED)) == 1


def test_tokens_wait_for_the_sweep_if_they_are_not_revoked_inline(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    signed_in = sign_in()
    disable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now(), is_inline=False)
    assert op.asked == []
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {"pending"}


def test_tokens_are_revoked_only_after_the_commit_of_the_caller(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    signed_in = sign_in()
    with transaction.atomic():
        disable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now())
        assert op.asked == []
    assert len(op.asked) == 2


def test_enabled_account_can_sign_in_again_but_has_no_session(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    disable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now())
    assert enable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now(), events=[build_cause()])
    signed_in.user.refresh_from_db()
    assert signed_in.user.is_active
    assert not OIDCSession.objects.live().exists()
    assert not enable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now())
    assert [json.loads(event.detail) for event in events(Action.ROLE_CHANGED)] == [
        {"withdrawn": ["is_active"]},
        {"granted": ["is_active"]},
    ]


def test_account_is_disabled_while_the_audit_database_is_away(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], audit_database_away: Callable[[], Any]
) -> None:
    signed_in = sign_in()
    with audit_database_away():
        disable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now(), events=[build_cause()])
    assert not OIDCSession.objects.live().exists()
    assert waiting() >= 3, "The events were committed with the change."


def test_nothing_is_enabled_without_its_event(op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any) -> None:
    """An event that grants something needs the key of its MAC; one that withdraws something gets the MAC later."""
    signed_in = sign_in()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": []})
    disable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now(), events=[build_cause()], is_inline=False)
    with pytest.raises(KeyMissing):
        enable_account(signed_in.user.pk, origin=ORIGIN, now=clock.now())
    signed_in.user.refresh_from_db()
    assert not signed_in.user.is_active
