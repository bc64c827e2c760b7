"""Invitations: an invited user has one valid code, and the previous one is revoked."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction

from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.config.providers import ProviderDeclaration, parse_provider
from django_phi_oidc.contrib.invitations.activation_codes import parse_code
from django_phi_oidc.contrib.invitations.errors import InvitationRefused
from django_phi_oidc.contrib.invitations.invitations import (
    Invitation,
    create_invitations,
    revoke_activation_codes,
)
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.subjects.identifiers import compute_activation_digest
from tests.support.subject_linking import ISSUER, KEY_1, NOW, at_once, capturing, make_user, statements

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
DAY = timedelta(days=1)


def declared(name: str = "default", **options: str) -> ProviderDeclaration:
    raw = {"issuer": ISSUER, "client_id": "portal", "client_secret": "s", "provisioning": "invitation", **options}
    return parse_provider(name, raw)


def call(*users: Any, **changed: Any) -> list[Invitation]:
    arguments: dict[str, Any] = {
        "provider": declared(),
        "key": KEY_1,
        "lifetime": 14 * DAY,
        "origin": Origin(actor="officer"),
        "now": NOW,
    }
    return create_invitations([user.pk for user in users], **{**arguments, **changed})


def events(action: str) -> list[tuple[str, str, str, str, dict[str, Any]]]:
    return [
        (event.actor, event.provider, event.resource, event.reason, json.loads(event.detail))
        for event in AuditEvent.objects.filter(action=action).order_by("id")
    ]


def waiting() -> list[Any]:
    rows = ActivationCode.objects.filter(redeemed_at=None, revoked_at=None)
    return list(rows.order_by("pk").values_list("user", flat=True))


def test_invitation_stores_a_digest_and_records_an_event() -> None:
    user = make_user()
    (invitation,) = call(user)
    (row,) = ActivationCode.objects.all()
    assert (row.user, row.provider, row.key_id, row.created_by) == (user, "default", KEY_1.id, "officer")
    assert (row.created_at, row.expires_at, row.redeemed_at, row.revoked_at) == (NOW, NOW + 14 * DAY, None, None)
    assert (invitation.user_id, invitation.expires_at) == (user.pk, row.expires_at)
    assert row.digest == compute_activation_digest(KEY_1.material, issuer=ISSUER, code=parse_code(invitation.code))
    detail = {"until": "2026-12-08T12:00:00+00:00"}
    assert events("activation.issued") == [("officer", "default", f"user/{user.pk}", "", detail)]
    assert invitation.code not in repr(invitation)
    assert parse_code(invitation.code) not in str(ActivationCode.objects.values().get())


def test_new_invitation_revokes_the_previous_code_of_that_provider() -> None:
    user, other = make_user(), make_user()
    call(user, other)
    call(user, provider=declared("clinic"))
    call(user, now=NOW + DAY)
    assert waiting() == [other.pk, user.pk, user.pk]
    revoked = ActivationCode.objects.exclude(revoked_at=None).get()
    assert (revoked.user, revoked.provider, revoked.revoked_at) == (user, "default", NOW + DAY)
    assert events("activation.revoked") == [("officer", "default", f"user/{user.pk}", "reissued", {})]


def test_new_invitation_records_no_revocation_of_an_expired_code() -> None:
    user = make_user()
    call(user)
    call(user, now=NOW + 14 * DAY)
    call(user, now=NOW + 15 * DAY)
    assert waiting() == [user.pk]
    assert len(events("activation.issued")) == 3
    assert len(events("activation.revoked")) == 1, "of the second code, which had not expired"


@pytest.mark.parametrize("provisioning", ["create", "existing", "invitation"])
def test_invitation_requires_the_provisioning_invitation(provisioning: str) -> None:
    user = make_user()
    if provisioning == "invitation":
        assert call(user, provider=declared(provisioning=provisioning))
        return
    with pytest.raises(InvitationRefused, match=f"its provisioning is {provisioning}"):
        call(user, provider=declared(provisioning=provisioning))
    assert not ActivationCode.objects.exists()


def test_missing_or_deactivated_user_refuses_all_invitations() -> None:
    users, deleted, inactive = [make_user(), make_user()], make_user(), make_user()
    call(users[0])
    pk = deleted.pk
    deleted.delete()
    deleted.pk = pk
    get_user_model().objects.filter(pk=inactive.pk).update(is_active=False)
    for invalid, message in ((deleted, "no user"), (inactive, "is deactivated")):
        with pytest.raises(InvitationRefused, match=message):
            call(users[0], invalid, users[1])
    assert (waiting(), AuditOutbox.objects.count()) == ([users[0].pk], 0)
    assert events("activation.revoked") == []
    assert len(call(*users)) == 2


def test_number_of_statements_does_not_depend_on_the_number_of_users() -> None:
    counts = []
    for number in (1, 30):
        users = [make_user() for _ in range(number)]
        call(*users)
        with capturing() as context:
            codes = [invitation.code for invitation in call(*users)]
        assert len(set(codes)) == number
        counts.append(len([sql for sql in statements(context) if "auditevent" not in sql]))
    assert counts[0] == counts[1]


def test_code_is_in_no_statement() -> None:
    with capturing() as context:
        (invitation,) = call(make_user())
    sent = " ".join(query["sql"] for query in context.captured_queries)
    assert "activationcode" in sent
    assert not [form for form in (invitation.code, parse_code(invitation.code)) if form.lower() in sent.lower()]


def test_rolled_back_invitation_leaves_the_previous_code() -> None:
    user = make_user()
    call(user)
    with transaction.atomic():
        call(user)
        transaction.set_rollback(True)
    assert waiting() == [user.pk]
    assert ActivationCode.objects.count() == len(events("activation.issued")) == 1


def test_concurrent_invitations_leave_one_valid_code_per_user() -> None:
    users = [make_user() for _ in range(5)]
    results = at_once(*(lambda n=n: call(*users[:: 1 if n % 2 else -1]) for n in range(8)))
    assert sorted(waiting()) == sorted(user.pk for user in users)
    assert ActivationCode.objects.count() == len(events("activation.issued")) == 40
    assert len(events("activation.revoked")) == 35
    assert len({invitation.code for invitations in results for invitation in invitations}) == 40


def test_database_constraint_allows_one_unused_code_per_user_and_provider() -> None:
    user = make_user()
    call(user)
    row = ActivationCode.objects.get()
    row.pk, row.digest = None, "another"
    with pytest.raises(IntegrityError):
        row.save(force_insert=True)
    row.pk, row.revoked_at = None, NOW
    row.save(force_insert=True)
    assert ActivationCode.objects.count() == 2


def test_revocation_affects_unused_codes_and_records_unexpired_ones() -> None:
    users = [make_user() for _ in range(4)]
    call(users[0], lifetime=DAY)
    call(*users[1:])
    ActivationCode.objects.filter(user=users[1]).update(redeemed_at=NOW)
    codes = ActivationCode.objects.filter(user__in=users[:3])
    assert revoke_activation_codes(codes, reason="withdrawn", origin=Origin(actor="7"), now=NOW + DAY) == 1
    assert revoke_activation_codes(codes, reason="withdrawn", origin=Origin(actor="7"), now=NOW + DAY) == 0
    assert waiting() == [users[3].pk]
    assert events("activation.revoked") == [("7", "default", f"user/{users[2].pk}", "withdrawn", {})]
    assert ActivationCode.objects.get(user=users[1]).revoked_at is None


def test_code_is_deleted_with_its_user() -> None:
    user, other = make_user(), make_user()
    call(user, other)
    get_user_model().objects.filter(pk=user.pk).delete()
    assert waiting() == [other.pk]


@pytest.mark.postgresql
def test_codes_have_indexes_for_their_queries() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'phi_oidc_invitations_activationcode'")
        indexes = " ".join(index for (index,) in cursor.fetchall())
    assert "(digest)" in indexes
    assert "(user_id, provider)" in indexes
    assert "pattern_ops" not in indexes
