"""An administrator links a person to an account: once, for good, and whatever else happens at the same time."""

import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from django.db import connection, transaction

from django_phi_oidc.audit.events import Origin, parse_event
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.crypto.keyring import SymmetricKey
from django_phi_oidc.errors import PhiOidcError, SubInvalid, SubjectKeyMissing, SubjectTaken, SubNotPairwise
from django_phi_oidc.subjects.identifiers import compute_subject_digest
from django_phi_oidc.subjects.linking import link_existing_user
from django_phi_oidc.subjects.models import ActivationCode, PairwiseSubject, SubjectDigest
from tests.support.subject_linking import (
    ISSUER,
    KEY_1,
    KEY_2,
    NOW,
    SUB,
    accounts,
    at_once,
    capturing,
    digests_by_key,
    make_user,
    sign_in,
)

PUBLIC = {"subject_type": "public"}


def link_by_hand(user: Any, *, sub: str = SUB, keys: Any = (KEY_1,), **options: str) -> PairwiseSubject:
    declared = parse_provider("default", {"issuer": ISSUER, "client_id": "portal", "client_secret": "s", **options})
    return link_existing_user(user, sub=sub, provider=declared, keys=keys, origin=Origin(actor="officer"), now=NOW)


def refusal_of(user: Any, **changed: Any) -> PhiOidcError | None:
    try:
        link_by_hand(user, **changed)
    except PhiOidcError as refusal:
        return refusal
    return None


@pytest.mark.django_db
def test_link_existing_writes_subject_digests_and_event_together() -> None:
    user = make_user()
    subject = link_by_hand(user, keys=[KEY_2, KEY_1])
    assert (subject.user, subject.issuer, subject.first_seen_at) == (user, ISSUER, NOW)
    assert digests_by_key() == {
        key.id: compute_subject_digest(key.material, issuer=ISSUER, sub=SUB) for key in (KEY_1, KEY_2)
    }
    event = parse_event(AuditOutbox.objects.get().event).event
    assert (event.action, event.subject, event.provider) == ("subject.linked", str(subject.uuid), "default")
    assert (event.actor, json.loads(event.detail)) == ("officer", {"created": False})


@pytest.mark.django_db
def test_link_existing_is_found_by_the_first_sign_in_and_by_a_provider_that_makes_no_accounts() -> None:
    user = make_user()
    subject = link_by_hand(user, keys=[KEY_1, KEY_2])
    linked = sign_in([KEY_2, KEY_1], create_user=None, now=NOW + timedelta(days=1))
    assert (linked.user, linked.subject, linked.created) == (user, subject, False)
    assert accounts() == (1, 1)
    assert AuditOutbox.objects.count() == 1


@pytest.mark.django_db
def test_link_existing_sends_no_raw_sub_to_the_database() -> None:
    user = make_user()
    with capturing() as context:
        link_by_hand(user)
        assert isinstance(refusal_of(user), SubjectTaken)
    assert len(context) > 5
    assert not [query["sql"] for query in context.captured_queries if SUB in query["sql"]]


@pytest.mark.django_db
@pytest.mark.parametrize("linked_by", ["a sign-in", "an administrator"])
@pytest.mark.parametrize("to", ["the same user", "another user"])
def test_link_existing_of_somebody_who_is_linked_is_refused_and_names_the_user(linked_by: str, to: str) -> None:
    user = make_user()
    sign_in(create_user=lambda: user) if linked_by == "a sign-in" else link_by_hand(user)
    other = user if to == "the same user" else make_user()
    before = PairwiseSubject.objects.get()
    refused = refusal_of(other, keys=[KEY_2, KEY_1])
    assert isinstance(refused, SubjectTaken)
    assert (refused.code, refused.user, str(refused)) == (
        "subject_taken",
        user.pk,
        f"This person is linked to user {user.pk} already.",
    )
    assert PairwiseSubject.objects.get() == before
    assert (SubjectDigest.objects.count(), AuditOutbox.objects.count()) == (1, 1)
    assert link_by_hand(other, sub=SUB + "2").user == other


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sub", "fault", "options"),
    [
        ("", SubInvalid, {}),
        ("x" * 256, SubInvalid, {}),
        ("248é", SubInvalid, {}),
        ("248\n249", SubInvalid, {}),
        ("248\x00", SubInvalid, {}),
        ("amina@example.org", SubNotPairwise, {}),
        ("x" * 255, None, {}),
        ("two words", None, {}),
        ("amina@example.org", None, PUBLIC),
    ],
)
def test_link_existing_takes_a_sub_that_a_sign_in_could_bring(
    sub: str, fault: type[PhiOidcError] | None, options: dict[str, str]
) -> None:
    refused = refusal_of(make_user(), sub=sub, **options)
    assert (type(refused) if refused else None) == fault
    assert PairwiseSubject.objects.count() == SubjectDigest.objects.count() == (0 if fault else 1)
    assert not sub or sub not in str(refused)


@pytest.mark.django_db
def test_link_existing_to_a_user_who_is_gone_leaves_nothing() -> None:
    user = make_user()
    get_user_model().objects.filter(pk=user.pk).delete()
    with pytest.raises(ObjectDoesNotExist):
        link_by_hand(user)
    assert accounts() == (0, 0)
    assert AuditOutbox.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize(("keys", "fault"), [([], True), ([KEY_2], True), ([KEY_2, KEY_1], False)], ids=str)
def test_link_existing_without_a_key_that_rows_bear_is_refused_like_a_first_sign_in(
    keys: list[SymmetricKey], fault: bool
) -> None:
    sign_in([KEY_1], sub="somebody before")
    refused = refusal_of(make_user(), keys=keys)
    assert isinstance(refused, SubjectKeyMissing) == fault
    assert PairwiseSubject.objects.count() == (1 if fault else 2)


@pytest.mark.django_db
def test_link_existing_rolled_back_by_its_caller_leaves_no_link_and_no_event() -> None:
    user = make_user()
    with suppress(ZeroDivisionError), transaction.atomic():
        assert link_by_hand(user).user == user
        raise ZeroDivisionError
    assert (PairwiseSubject.objects.count(), SubjectDigest.objects.count(), AuditOutbox.objects.count()) == (0, 0, 0)


@pytest.mark.django_db(transaction=True)
def test_link_existing_revokes_the_code_that_waits_there_and_no_other() -> None:
    user, other, taken = make_user(), make_user(), sign_in(sub="somebody").user
    for number, (invited, provider) in enumerate([(user, "default"), (user, "elsewhere"), (other, "default")]):
        ActivationCode.objects.create(
            user=invited,
            provider=provider,
            digest=str(number),
            created_at=NOW,
            expires_at=NOW + timedelta(days=1),
        )

    def waiting() -> list[str]:
        return sorted(ActivationCode.objects.filter(revoked_at=None).values_list("digest", flat=True))

    refused = refusal_of(user, sub="somebody")
    assert (isinstance(refused, SubjectTaken) and refused.user, waiting()) == (taken.pk, ["0", "1", "2"])
    link_by_hand(user)
    assert waiting() == ["1", "2"]
    event = AuditEvent.objects.get(action="activation.revoked")
    assert (event.actor, event.reason, event.resource) == ("officer", "linked", f"user/{user.pk}")


@pytest.mark.django_db(transaction=True)
def test_link_existing_by_many_administrators_at_once_links_once_and_tells_the_others() -> None:
    users = [make_user() for _ in range(6)]
    lists = [[KEY_1, KEY_2], [KEY_2, KEY_1], [KEY_1]] * 2
    refusals = at_once(
        *(lambda user=user, keys=keys: refusal_of(user, keys=keys) for user, keys in zip(users, lists, strict=True))
    )
    winner = PairwiseSubject.objects.get().user
    assert [user for user, refused in zip(users, refusals, strict=True) if refused is None] == [winner]
    assert [refused.user for refused in refusals if isinstance(refused, SubjectTaken)] == [winner.pk] * 5
    assert AuditEvent.objects.filter(action="subject.linked").count() == 1


@pytest.mark.django_db(transaction=True)
def test_link_existing_whom_a_sign_in_links_after_the_look_is_refused() -> None:
    user, signed_in = make_user(), []

    def sign_in_after_the_look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if not signed_in:
            signed_in.extend(at_once(sign_in))
        return result

    with connection.execute_wrapper(sign_in_after_the_look):
        refused = refusal_of(user)
    assert signed_in[0].created
    assert isinstance(refused, SubjectTaken)
    assert refused.user == signed_in[0].user.pk
    assert PairwiseSubject.objects.count() == 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_link_existing_in_the_middle_of_a_first_sign_in_wins_and_is_what_the_sign_in_finds() -> None:
    """On SQLite one waits for the other, from before the look."""
    user = make_user()

    def make_user_after_the_link() -> Any:
        assert at_once(lambda: refusal_of(user)) == [None]
        return make_user()

    linked = sign_in(create_user=make_user_after_the_link)
    assert (linked.user, linked.created) == (user, False)
    assert accounts() == (1, 1)
