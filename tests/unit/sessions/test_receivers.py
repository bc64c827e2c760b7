"""Django's logout and changes of accounts and links end OIDC sessions."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db import connections, transaction
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.request_context import use_origin
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.sessions import token_revocation
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from django_phi_oidc.subjects.linking import mark_seen
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import (
    ACCESS_TOKEN,
    NOW,
    REFRESH_TOKEN,
    ScriptedOP,
    SignedIn,
    django_session_exists,
    events,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]


def test_django_logout_ends_the_session_and_records_the_actor(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    signed_in.client().get("/leave/")
    assert OIDCSession.objects.get().end_reason == "django_logout"
    (event,) = events(Action.SESSION_ENDED)
    assert (event.reason, event.actor) == ("django_logout", str(signed_in.user.pk))
    assert events(Action.LOGOUT_COMPLETED) == []
    assert not django_session_exists(signed_in.django_key)
    assert len(op.asked) == 2


def test_django_logout_without_an_oidc_session_does_nothing(
    sign_in: Callable[..., SignedIn],
) -> None:
    signed_in = sign_in()
    client = Client()
    client.force_login(signed_in.user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    client.get("/leave/", secure=True)
    assert OIDCSession.objects.get().ended_at is None
    assert events(Action.SESSION_ENDED) == []


def test_django_logout_without_a_request_does_nothing(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    user_logged_out.send(sender=type(signed_in.user), request=None, user=signed_in.user)
    assert OIDCSession.objects.get().ended_at is None


def sweep() -> None:
    token_revocation.retry_due(clock=clock.now, budget_seconds=5, timeout_seconds=2, give_up_after=timedelta(days=1))


DELETIONS: dict[str, Callable[[SignedIn], Any]] = {
    "the link": lambda signed_in: signed_in.subject.delete(),
    "the user": lambda signed_in: signed_in.user.delete(),
    "users, many at once": lambda signed_in: type(signed_in.user).objects.all().delete(),
}


@pytest.mark.parametrize("deletion", DELETIONS.values(), ids=DELETIONS)
def test_unlinking_ends_each_live_session_and_erases_all_claims(
    deletion: Callable[[SignedIn], Any], op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    signed_in = sign_in()
    subject = str(signed_in.subject.uuid)
    again = another_session(signed_in)
    ended_before = another_session(signed_in)
    end_session(ended_before.pk, EndReason.LOGOUT, origin=Origin(), now=NOW)
    deletion(signed_in)
    reasons = dict(OIDCSession.objects.values_list("pk", "end_reason"))
    assert reasons == {
        signed_in.session.pk: "subject_unlinked",
        again.pk: "subject_unlinked",
        ended_before.pk: "logout",
    }
    assert not django_session_exists(signed_in.django_key)
    assert not StoredClaim.objects.exists()
    assert not PairwiseSubject.objects.exists()
    recorded = [(event.session, event.reason, event.subject) for event in events(Action.SESSION_ENDED)[1:]]
    unlinked = EndReason.SUBJECT_UNLINKED
    assert sorted(recorded) == sorted((str(item.pk), unlinked, subject) for item in (signed_in.session, again))
    assert [event.subject for event in events(Action.SUBJECT_UNLINKED)] == [subject]
    scrubbed = [json.loads(event.detail) for event in events(Action.CLAIM_SCRUBBED)]
    assert {"cause": "unlinked", "claims": ["address"], "counts": [1]} in scrubbed
    assert {"cause": "session_ended", "claims": ["birthdate"], "counts": [1]} in scrubbed


def another_session(signed_in: SignedIn) -> OIDCSession:
    twin = OIDCSession.objects.get(pk=signed_in.session.pk)
    twin.pk, twin.session_key, twin.id_token = uuid.uuid4(), None, None
    twin.access_token, twin.refresh_token = "access-of-the-twin", None
    twin.save(force_insert=True)
    return twin


def test_unlinking_revokes_tokens_only_after_the_commit(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    with transaction.atomic():
        signed_in.subject.delete()
        assert op.asked == []
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {"done"}


def test_c6_deleting_the_row_of_a_live_session_ends_it_first(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    session_id = str(signed_in.session.pk)
    with transaction.atomic():
        signed_in.session.delete()
        assert op.asked == []
    assert not OIDCSession.objects.exists()
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]
    assert not django_session_exists(signed_in.django_key)
    assert list(StoredClaim.objects.values_list("name", flat=True)) == ["address"], "It has a retention of its own."
    (event,) = events(Action.SESSION_ENDED)
    assert (event.reason, event.session) == ("row_deleted", session_id)


def test_c6_deleting_many_rows_leaves_revocations_to_the_sweep(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    for _ in range(2):
        sign_in()
    OIDCSession.objects.all().delete()
    assert op.asked == []
    assert PendingRevocation.objects.due(clock.now()).count() == 4
    sweep()
    assert len(op.asked) == 4
    assert not StoredClaim.objects.filter(name="birthdate").exists()


def test_c6_deletion_of_a_row_that_is_rolled_back_changes_nothing(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    signed_in = sign_in()
    with transaction.atomic():
        signed_in.session.delete()
        transaction.set_rollback(True)
    assert OIDCSession.objects.get().ended_at is None
    assert django_session_exists(signed_in.django_key)
    assert (op.asked, PendingRevocation.objects.count(), events(Action.SESSION_ENDED)) == ([], 0, [])


def test_c6_deleting_the_row_of_an_ended_session_records_no_end(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    signed_in = sign_in()
    end_session(signed_in.session.pk, EndReason.LOGOUT, origin=Origin(), now=NOW)
    OIDCSession.objects.all().delete()
    assert [event.reason for event in events(Action.SESSION_ENDED)] == ["logout"]
    assert PendingRevocation.objects.count() == 2


def test_unlinking_of_many_subjects_leaves_revocations_to_the_sweep(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    for _ in range(2):
        sign_in()
    PairwiseSubject.objects.all().delete()
    assert op.asked == []
    assert PendingRevocation.objects.due(clock.now()).count() == 4
    sweep()
    assert len(op.asked) == 4


def test_unlinking_that_is_rolled_back_changes_nothing(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    with transaction.atomic():
        signed_in.user.delete()
        transaction.set_rollback(True)
    assert OIDCSession.objects.get().ended_at is None
    assert django_session_exists(signed_in.django_key)
    assert StoredClaim.objects.count() == 2
    assert (op.asked, events(Action.SUBJECT_UNLINKED), events(Action.SESSION_ENDED)) == ([], [], [])


def test_unlinking_records_the_actor(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    subject = sign_in().subject
    with use_origin(lambda: Origin(actor="officer", client_ip="192.0.2.9")):
        subject.delete()
    sign_in().subject.delete()
    for action in (Action.SUBJECT_UNLINKED, Action.SESSION_ENDED):
        assert [event.actor for event in events(action)] == ["officer", ""]


def test_unlinking_of_a_deleted_subject_records_nothing(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    twin = PairwiseSubject.objects.get(pk=signed_in.subject.pk)
    signed_in.subject.delete()
    twin.delete()
    assert len(events(Action.SUBJECT_UNLINKED)) == 1


def test_unlinking_waits_for_a_concurrent_sign_in(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    """The session of the concurrent sign-in ends too, no matter which of the two waits for the other."""
    signed_in = sign_in()
    holding = threading.Event()

    def sign_in_again() -> None:
        try:
            with transaction.atomic():
                mark_seen(signed_in.subject, now=NOW)
                holding.set()
                time.sleep(0.3)
                another_session(signed_in)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(sign_in_again)
        assert holding.wait(10)
        signed_in.subject.delete()
        opening.result(10)
    assert list(OIDCSession.objects.values_list("end_reason", flat=True)) == ["subject_unlinked"] * 2
    with pytest.raises(PairwiseSubject.DoesNotExist):
        mark_seen(signed_in.subject, now=NOW)


def set_password(signed_in: SignedIn) -> None:
    user = get_user_model()._default_manager.get(pk=signed_in.user.pk)
    user.set_password("another")
    user.save()


def deactivate(signed_in: SignedIn) -> None:
    user = get_user_model()._default_manager.get(pk=signed_in.user.pk)
    user.is_active = False
    user.save(update_fields=["is_active"])


ROLES: dict[str, Callable[[Any, Group], object]] = {
    "groups.add": lambda user, group: user.groups.add(group),
    "groups.remove": lambda user, group: user.groups.remove(group),
    "groups.clear": lambda user, group: user.groups.clear(),
    "group.user_set.add": lambda user, group: group.user_set.add(user),
    "group.user_set.clear": lambda user, group: group.user_set.clear(),
    "row of a group": lambda user, group: user.groups.through.objects.create(user=user, group=group),
    "row of a group deleted": lambda user, group: user.groups.through.objects.get().delete(),
    "row of a permission": lambda user, group: user.user_permissions.through.objects.create(
        user=user, permission=Permission.objects.all()[0]
    ),
    "permissions.add": lambda user, group: user.user_permissions.add(Permission.objects.all()[0]),
}


@pytest.mark.parametrize(("change", "reason"), [(set_password, "password_changed"), (deactivate, "user_inactive")])
def test_change_of_an_account_ends_its_sessions(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], change: Callable[[SignedIn], None], reason: str
) -> None:
    changed, other = sign_in(), sign_in()
    user = get_user_model()._default_manager.get(pk=changed.user.pk)
    user.first_name = "Another"
    user.save()
    user_logged_in.send(sender=type(user), request=None, user=user)
    assert OIDCSession.objects.get(pk=changed.session.pk).ended_at is None, "that was no such change"
    change(changed)
    assert OIDCSession.objects.get(pk=changed.session.pk).end_reason == reason
    assert OIDCSession.objects.get(pk=other.session.pk).ended_at is None
    assert not django_session_exists(changed.django_key)
    assert len(op.asked) == 2


def test_new_password_ends_no_session_if_configured(sign_in: Callable[..., SignedIn], settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"end_on": []})
    set_password(sign_in())
    assert OIDCSession.objects.get().ended_at is None


@pytest.mark.parametrize("change", ROLES.values(), ids=ROLES)
def test_change_of_roles_ends_the_sessions_if_configured(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any, change: Callable[[Any, Group], object]
) -> None:
    changed, other = sign_in(), sign_in()
    group = Group.objects.create(name="clinicians")
    user: Any = changed.user
    removals = ("groups.remove", "groups.clear", "group.user_set.clear", "row of a group deleted")
    if change in [ROLES[name] for name in removals]:
        user.groups.add(group)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"end_on": ["roles"]})
    change(user, group)
    assert OIDCSession.objects.get(pk=changed.session.pk).end_reason == "roles_changed"
    assert OIDCSession.objects.get(pk=other.session.pk).ended_at is None


def test_g2_row_that_is_rolled_back_ends_no_session(sign_in: Callable[..., SignedIn], settings: Any) -> None:
    user: Any = sign_in().user
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"end_on": ["roles"]})
    with transaction.atomic():
        user.groups.through.objects.create(user=user, group=Group.objects.create(name="clinicians"))
        transaction.set_rollback(True)
    assert OIDCSession.objects.get().ended_at is None


def test_change_of_roles_ends_no_session_by_default(sign_in: Callable[..., SignedIn]) -> None:
    user: Any = sign_in().user
    user.groups.add(Group.objects.create(name="clinicians"))
    user.groups.through.objects.create(user=user, group=Group.objects.create(name="officers"))
    assert OIDCSession.objects.get().ended_at is None


def test_change_that_is_rolled_back_ends_nothing(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    with transaction.atomic():
        set_password(signed_in)
        transaction.set_rollback(True)
    assert OIDCSession.objects.get().ended_at is None
    assert (op.asked, django_session_exists(signed_in.django_key)) == ([], True)


def unlink(signed_in: SignedIn) -> None:
    assert signed_in.session.subject is not None
    PairwiseSubject.objects.get(pk=signed_in.session.subject_id).delete()


def keep(signed_in: SignedIn) -> None:
    assert signed_in.session.subject is not None
    place_hold(signed_in.session.subject.uuid, reason="Docket 26-117", until=None, origin=Origin(), now=NOW)


@pytest.mark.parametrize("act", [unlink, keep])
def test_change_of_a_person_during_the_end_of_a_session_does_not_deadlock(
    act: Callable[[SignedIn], None], sign_in: Callable[..., SignedIn]
) -> None:
    people, start = [sign_in() for _ in range(20)], threading.Barrier(2)

    def leave(signed_in: SignedIn) -> None:
        end_session(signed_in.session.pk, EndReason.LOGOUT, origin=Origin(), now=NOW)

    def with_each(do: Callable[[SignedIn], None]) -> None:
        try:
            for signed_in in people:
                start.wait(60)
                do(signed_in)
        except BaseException:
            # The other one would have nothing to wait for.
            start.abort()
            raise
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        for item in [pool.submit(with_each, do) for do in (act, leave)]:
            item.result(60)
    assert not OIDCSession.objects.filter(ended_at=None).exists()
