"""Redemption of activation codes: a code links one person, also under concurrency. An invalid code changes nothing."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission

from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.contrib.invitations.activation_redemption import redeem_code
from django_phi_oidc.contrib.invitations.errors import ActivationRefused
from django_phi_oidc.contrib.invitations.invitations import revoke_activation_codes
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.crypto.keyring import SymmetricKey
from django_phi_oidc.errors import SubjectKeyMissing, SubjectTaken
from django_phi_oidc.subjects.linking import link_existing_user
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from tests.support.subject_linking import (
    KEY_1,
    KEY_2,
    KEY_3,
    NOW,
    SUB,
    accounts,
    at_once,
    capturing,
    make_user,
    sign_in,
    statements,
)
from tests.unit.contrib.invitations.test_invitations import DAY, call, declared

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
WRONG = "0000-0000-0000-0000"


def invited(user: Any, **changed: Any) -> str:
    """Return the code of a new invitation."""
    (invitation,) = call(user, **changed)
    return invitation.code


def enter(
    code: str, *, sub: str = SUB, keys: Sequence[SymmetricKey] = (KEY_1,), now: datetime = NOW, **options: Any
) -> PairwiseSubject:
    provider = declared(**options)
    return redeem_code(code, sub=sub, provider=provider, keys=keys, origin=Origin(client_ip="192.0.2.1"), now=now)


def outcome(code: str, **options: Any) -> str:
    """Return the reason of the refusal, or "linked"."""
    try:
        enter(code, **options)
    except ActivationRefused as refusal:
        return refusal.reason
    return "linked"


def test_code_links_the_person_and_is_marked_redeemed() -> None:
    user = make_user()
    subject = enter(invited(user), now=NOW + DAY)
    assert (subject.user, subject.first_seen_at) == (user, NOW + DAY)
    assert sign_in(create_user=None).user == user
    row = ActivationCode.objects.get()
    assert (row.redeemed_at, row.revoked_at) == (NOW + DAY, None)
    events = [
        (event.action, event.subject, event.provider, event.resource, event.client_ip, event.detail)
        for event in AuditEvent.objects.exclude(action="activation.issued").order_by("action")
    ]
    fields = (str(subject.uuid), "default", f"user/{user.pk}", "192.0.2.1")
    assert events == [
        ("activation.redeemed", *fields, "{}"),
        ("subject.linked", *fields, '{"created":false}'),
    ]


def expired(user: Any) -> str:
    return invited(user, now=NOW - 14 * DAY)


def revoked(user: Any) -> str:
    code = invited(user)
    revoke_activation_codes(ActivationCode.objects.filter(user=user), reason="withdrawn", origin=Origin(), now=NOW)
    return code


def reissued(user: Any) -> str:
    code = invited(user)
    invited(user)
    return code


def spent(user: Any) -> str:
    code = invited(user)
    enter(code, sub="other person")
    return code


def deactivated(user: Any) -> str:
    code = invited(user)
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    return code


def of_another_provider(user: Any) -> str:
    return invited(user, provider=declared("clinic"))


def of_another_issuer(user: Any) -> str:
    return invited(user, provider=declared(issuer="https://before.example.test"))


def of_a_removed_key(user: Any) -> str:
    return invited(user, key=KEY_3)


def of_a_deleted_user(user: Any) -> str:
    code = invited(user)
    user.delete()
    return code


REFUSED: dict[str, tuple[Callable[[Any], str], str]] = {
    "wrong": (lambda user: (invited(user), WRONG)[1], "unknown"),
    "empty": (lambda user: (invited(user), "")[1], "unknown"),
    "expired": (expired, "expired"),
    "revoked": (revoked, "revoked"),
    "reissued": (reissued, "revoked"),
    "spent": (spent, "redeemed"),
    "of a deactivated user": (deactivated, "user_inactive"),
    "of another provider": (of_another_provider, "unknown"),
    "of the same provider with another issuer": (of_another_issuer, "unknown"),
    "under a removed key": (of_a_removed_key, "unknown"),
    "of a deleted user": (of_a_deleted_user, "unknown"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_invalid_code_links_no_account(make: Callable[[Any], str], reason: str) -> None:
    user, other = make_user(), make_user()
    valid, invalid = invited(other), make(user)
    before, linked = list(ActivationCode.objects.values()), PairwiseSubject.objects.count()
    assert outcome(invalid) == reason
    assert list(ActivationCode.objects.values()) == before
    assert (PairwiseSubject.objects.count(), AuditOutbox.objects.count()) == (linked, 0)
    assert outcome(valid) == "linked"
    assert sign_in(create_user=None).user == other


@pytest.mark.parametrize("reason", ["wrong", "expired", "revoked", "spent", "of a deactivated user"])
def test_refusals_take_the_same_statements(reason: str) -> None:
    make, _ = REFUSED[reason]
    invalid = make(make_user())
    with capturing() as context:
        assert outcome(invalid) != "linked"
    assert [sql.split()[0] for sql in statements(context)] == ["UPDATE", "SELECT"]


def test_code_expires_at_its_end_time() -> None:
    code = invited(make_user())
    assert outcome(code, now=NOW + 14 * DAY) == "expired"
    assert outcome(code, now=NOW + 14 * DAY - timedelta(microseconds=1)) == "linked"


@pytest.mark.parametrize("keys", [[KEY_1], [KEY_2, KEY_1], [KEY_1, KEY_2]], ids=str)
def test_code_is_valid_while_its_key_is_configured(keys: list[SymmetricKey]) -> None:
    code = invited(make_user())
    assert outcome(code, keys=[KEY_2]) == "unknown"
    assert outcome(code, keys=keys) == "linked"
    assert set(SubjectDigest.objects.values_list("key_id", flat=True)) == {key.id for key in keys}


def test_linked_person_is_refused_and_the_code_stays_valid() -> None:
    first = sign_in()
    code = invited(make_user())
    assert outcome(code) == "subject_taken"
    assert ActivationCode.objects.get().redeemed_at is None
    assert PairwiseSubject.objects.get().user == first.user
    assert outcome(code, sub="new person") == "linked"


def test_code_is_refused_while_a_subject_key_is_missing() -> None:
    sign_in([KEY_2], sub="known")
    code = invited(make_user())
    with pytest.raises(SubjectKeyMissing):
        enter(code)
    assert ActivationCode.objects.get().redeemed_at is None
    assert outcome(code, keys=[KEY_1, KEY_2]) == "linked"


def test_refusal_names_the_user_but_not_the_code() -> None:
    user = make_user()
    code = expired(user)
    with pytest.raises(ActivationRefused) as refusal:
        enter(code)
    assert refusal.value.user == user.pk
    assert code not in f"{refusal.value!r} {refusal.value} {vars(refusal.value)}"


def test_code_and_sub_are_in_no_statement() -> None:
    code = invited(make_user())
    with capturing() as context:
        assert outcome(WRONG) == "unknown"
        assert outcome(code) == "linked"
    sent = " ".join(query["sql"] for query in context.captured_queries)
    assert "activationcode" in sent
    assert not [text for text in (SUB, code, code.replace("-", ""), WRONG.replace("-", "")) if text in sent]


# Concurrent calls, each with its own connection


def test_one_code_links_one_of_fifty_persons() -> None:
    user = make_user()
    code = invited(user)
    outcomes = at_once(*(lambda n=n: outcome(code, sub=f"person {n}") for n in range(50)))
    assert Counter(outcomes) == {"linked": 1, "redeemed": 49}
    assert accounts() == (1, 1)
    assert sign_in(sub=f"person {outcomes.index('linked')}", create_user=None).user == user
    for action in ("activation.redeemed", "subject.linked"):
        assert AuditEvent.objects.filter(action=action).count() == 1


def test_one_code_links_one_account_for_fifty_requests_of_a_person() -> None:
    user = make_user()
    code = invited(user)
    outcomes = at_once(*(lambda: outcome(code, keys=[KEY_1, KEY_2]) for _ in range(50)))
    assert Counter(outcomes) == {"linked": 1, "redeemed": 49}
    assert accounts() == (1, 1)
    assert sign_in(create_user=None).user == user


def test_ten_codes_link_a_person_to_one_account() -> None:
    users = [make_user() for _ in range(10)]
    codes = [invited(user) for user in users]
    outcomes = at_once(*(lambda code=code: outcome(code) for code in codes))
    assert Counter(outcomes) == {"linked": 1, "subject_taken": 9}
    assert sign_in(create_user=None).user == users[outcomes.index("linked")]
    assert ActivationCode.objects.filter(redeemed_at=None).count() == 9


def test_code_redeemed_during_a_reissue_is_either_redeemed_or_revoked() -> None:
    for _ in range(5):
        user = make_user()
        code = invited(user)
        sub = f"person {user.pk}"
        first, second = at_once(
            lambda code=code, sub=sub: outcome(code, sub=sub),  # type: ignore[misc]
            lambda user=user: invited(user),  # type: ignore[misc]
        )
        assert first in {"linked", "revoked"}
        old, new = ActivationCode.objects.filter(user=user).order_by("pk")
        assert (old.redeemed_at is None, old.revoked_at is None) == (first == "revoked", first == "linked")
        assert outcome(second, sub=f"{sub} again") == "linked"
        assert new.revoked_at is None


def test_code_redeemed_during_a_manual_link_has_one_winner() -> None:
    def link_manually(user: Any, sub: str) -> str:
        try:
            link_existing_user(user, sub=sub, provider=declared(), keys=[KEY_1], origin=Origin(), now=NOW)
        except SubjectTaken as error:
            return error.code
        return "linked"

    for _ in range(5):
        user = make_user()
        code, sub = invited(user), f"person {user.pk}"
        outcomes = at_once(
            lambda code=code, sub=sub: outcome(code, sub=sub),  # type: ignore[misc]
            lambda user=user, sub=sub: link_manually(user, sub),  # type: ignore[misc]
        )
        assert outcomes in (["linked", "subject_taken"], ["revoked", "linked"])
        assert outcome(code, sub=f"{sub} again") in {"redeemed", "revoked"}


def make_superuser(user: Any) -> None:
    get_user_model()._base_manager.filter(pk=user.pk).update(is_superuser=True)


def make_staff(user: Any) -> None:
    get_user_model()._base_manager.filter(pk=user.pk).update(is_staff=True)


def give_permission_to_reveal(user: Any) -> None:
    user.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim"))


def give_group_permission_to_reveal(user: Any) -> None:
    group = Group.objects.create(name="clinicians")
    user.groups.add(group)
    group.permissions.add(Permission.objects.get(codename="reveal_storedclaim"))


def give_permission_of_the_project(user: Any) -> None:
    """The counterpart: patients get permissions of the project, too."""
    user.user_permissions.add(Permission.objects.get(codename="view_group"))


@pytest.mark.parametrize(
    ("grow", "is_refused"),
    [
        (make_superuser, True),
        (make_staff, True),
        (give_permission_to_reveal, True),
        (give_group_permission_to_reveal, True),
        (give_permission_of_the_project, False),
    ],
)
def test_f5_code_is_revoked_if_the_privileges_of_its_user_have_grown(
    grow: Callable[[Any], None], is_refused: bool
) -> None:
    user = make_user()
    code = invited(user)
    grow(user)
    assert outcome(code) == ("privileges_grown" if is_refused else "linked")
    assert PairwiseSubject.objects.count() == (0 if is_refused else 1)
    revoked = [(event.reason, event.resource) for event in AuditEvent.objects.filter(action="activation.revoked")]
    assert revoked == ([("privileges_grown", f"user/{user.pk}")] if is_refused else [])
    if is_refused:
        assert outcome(code) == "revoked"
        assert outcome(invited(user)) == "linked", "a code that was created with these privileges in mind"


@pytest.mark.parametrize("grow", [make_superuser, make_staff, give_permission_to_reveal])
def test_f5_code_is_valid_if_privileges_were_there_or_are_gone(grow: Callable[[Any], None]) -> None:
    user = make_user()
    grow(user)
    code = invited(user)
    get_user_model()._base_manager.filter(pk=user.pk).update(is_superuser=False, is_staff=False)
    assert outcome(code) == "linked"


@pytest.mark.parametrize("keys", [[KEY_1], [KEY_2, KEY_1]])
@pytest.mark.parametrize("change", ["user", "privileges", "no list", "nothing"])
def test_f7_code_that_was_changed_in_the_database_is_refused(change: str, keys: list[SymmetricKey]) -> None:
    attacker, victim = make_user(), make_user()
    code = invited(attacker)
    changes: dict[str, Any] = {
        "user": {"user": victim},
        "privileges": {"privileges": ["superuser"]},
        "no list": {"privileges": 7},
    }
    ActivationCode.objects.update(**changes.get(change, {"provider": "default"}))
    assert outcome(code, keys=keys) == ("linked" if change == "nothing" else "altered")
    assert PairwiseSubject.objects.filter(user=victim).count() == 0
