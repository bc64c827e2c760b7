"""An administrator links a person to a user: once, also under concurrency, and the link does not change."""

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
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.crypto.keyring import SymmetricKey
from django_phi_oidc.errors import Code, PhiOidcError, SubjectKeyMissing, SubjectTaken
from django_phi_oidc.subjects.identifiers import compute_subject_digest
from django_phi_oidc.subjects.linking import link_existing_user
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from tests.support.error_codes import raises
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


def link_manually(user: Any, *, sub: str = SUB, keys: Any = (KEY_1,), **options: str) -> PairwiseSubject:
    provider = parse_provider("default", {"issuer": ISSUER, "client_id": "portal", "client_secret": "s", **options})
    return link_existing_user(user, sub=sub, provider=provider, keys=keys, origin=Origin(actor="officer"), now=NOW)


def refusal_of(user: Any, **options: Any) -> PhiOidcError | None:
    try:
        link_manually(user, **options)
    except PhiOidcError as refusal:
        return refusal
    return None


@pytest.mark.django_db
def test_link_creates_subject_digests_and_event() -> None:
    user = make_user()
    subject = link_manually(user, keys=[KEY_2, KEY_1])
    assert (subject.user, subject.issuer, subject.first_seen_at) == (user, ISSUER, NOW)
    assert digests_by_key() == {
        key.id: compute_subject_digest(key.material, issuer=ISSUER, sub=SUB) for key in (KEY_1, KEY_2)
    }
    event = parse_event(AuditOutbox.objects.get().event).event
    assert (event.action, event.subject, event.provider) == ("subject.linked", str(subject.uuid), "default")
    assert (event.actor, json.loads(event.detail)) == ("officer", {"created": False})


@pytest.mark.django_db
def test_first_sign_in_finds_the_link_without_create_user() -> None:
    user = make_user()
    subject = link_manually(user, keys=[KEY_1, KEY_2])
    linked = sign_in([KEY_2, KEY_1], create_user=None, now=NOW + timedelta(days=1))
    assert (linked.user, linked.subject, linked.created) == (user, subject, False)
    assert accounts() == (1, 1)
    assert AuditOutbox.objects.count() == 1


@pytest.mark.django_db
def test_raw_sub_is_in_no_statement() -> None:
    user = make_user()
    with capturing() as context:
        link_manually(user)
        assert isinstance(refusal_of(user), SubjectTaken)
    assert len(context) > 5
    assert not [query["sql"] for query in context.captured_queries if SUB in query["sql"]]


@pytest.mark.django_db
@pytest.mark.parametrize("linked_by", ["a sign-in", "an administrator"])
@pytest.mark.parametrize("to", ["the same user", "another user"])
def test_link_of_a_linked_person_is_refused_with_the_user(linked_by: str, to: str) -> None:
    user = make_user()
    sign_in(create_user=lambda: user) if linked_by == "a sign-in" else link_manually(user)
    other = user if to == "the same user" else make_user()
    before = PairwiseSubject.objects.get()
    refusal = refusal_of(other, keys=[KEY_2, KEY_1])
    assert isinstance(refusal, SubjectTaken)
    assert (refusal.code, refusal.user, str(refusal)) == (
        "subject_taken",
        user.pk,
        f"This person is linked to user {user.pk} already.",
    )
    assert PairwiseSubject.objects.get() == before
    assert (SubjectDigest.objects.count(), AuditOutbox.objects.count()) == (1, 1)
    assert link_manually(other, sub=SUB + "2").user == other


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sub", "error", "options"),
    [
        ("", Code.SUB_INVALID, {}),
        ("x" * 256, Code.SUB_INVALID, {}),
        ("248é", Code.SUB_INVALID, {}),
        ("248\n249", Code.SUB_INVALID, {}),
        ("248\x00", Code.SUB_INVALID, {}),
        ("amina@example.org", Code.SUB_NOT_PAIRWISE, {}),
        ("x" * 255, None, {}),
        ("two words", None, {}),
        ("amina@example.org", None, PUBLIC),
    ],
)
def test_sub_is_validated_as_at_sign_in(sub: str, error: Code | None, options: dict[str, str]) -> None:
    refusal = refusal_of(make_user(), sub=sub, **options)
    assert (refusal.code if refusal else None) == error
    assert PairwiseSubject.objects.count() == SubjectDigest.objects.count() == (0 if error else 1)
    assert not sub or sub not in str(refusal)


@pytest.mark.django_db
def test_link_to_a_deleted_user_leaves_no_rows() -> None:
    user = make_user()
    get_user_model().objects.filter(pk=user.pk).delete()
    with raises(ObjectDoesNotExist):
        link_manually(user)
    assert accounts() == (0, 0)
    assert AuditOutbox.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize(("keys", "is_refused"), [([], True), ([KEY_2], True), ([KEY_2, KEY_1], False)], ids=str)
def test_link_is_refused_while_a_subject_key_is_missing(keys: list[SymmetricKey], is_refused: bool) -> None:
    sign_in([KEY_1], sub="known")
    refusal = refusal_of(make_user(), keys=keys)
    assert isinstance(refusal, SubjectKeyMissing) == is_refused
    assert PairwiseSubject.objects.count() == (1 if is_refused else 2)


@pytest.mark.django_db
def test_rolled_back_link_leaves_no_rows_and_no_event() -> None:
    user = make_user()
    with suppress(ZeroDivisionError), transaction.atomic():
        assert link_manually(user).user == user
        raise ZeroDivisionError
    assert (PairwiseSubject.objects.count(), SubjectDigest.objects.count(), AuditOutbox.objects.count()) == (0, 0, 0)


@pytest.mark.django_db(transaction=True)
def test_link_revokes_the_users_unused_code_only() -> None:
    user, other, taken = make_user(), make_user(), sign_in(sub="other").user
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

    refusal = refusal_of(user, sub="other")
    assert (isinstance(refusal, SubjectTaken) and refusal.user, waiting()) == (taken.pk, ["0", "1", "2"])
    link_manually(user)
    assert waiting() == ["1", "2"]
    event = AuditEvent.objects.get(action="activation.revoked")
    assert (event.actor, event.reason, event.resource) == ("officer", "linked", f"user/{user.pk}")


@pytest.mark.django_db(transaction=True)
def test_one_of_many_concurrent_links_wins() -> None:
    users = [make_user() for _ in range(6)]
    lists = [[KEY_1, KEY_2], [KEY_2, KEY_1], [KEY_1]] * 2
    refusals = at_once(
        *(lambda user=user, keys=keys: refusal_of(user, keys=keys) for user, keys in zip(users, lists, strict=True))
    )
    winner = PairwiseSubject.objects.get().user
    assert [user for user, refusal in zip(users, refusals, strict=True) if refusal is None] == [winner]
    assert [refusal.user for refusal in refusals if isinstance(refusal, SubjectTaken)] == [winner.pk] * 5
    assert AuditEvent.objects.filter(action="subject.linked").count() == 1


@pytest.mark.django_db(transaction=True)
def test_link_is_refused_after_a_concurrent_sign_in() -> None:
    user, signed_in = make_user(), []

    def sign_in_after_select(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if not signed_in:
            signed_in.extend(at_once(sign_in))
        return result

    with connection.execute_wrapper(sign_in_after_select):
        refusal = refusal_of(user)
    assert signed_in[0].created
    assert isinstance(refusal, SubjectTaken)
    assert refusal.user == signed_in[0].user.pk
    assert PairwiseSubject.objects.count() == 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_first_sign_in_uses_a_concurrent_link() -> None:
    """PostgreSQL only: on SQLite one transaction waits for the other before its first query."""
    user = make_user()

    def make_user_after_the_link() -> Any:
        assert at_once(lambda: refusal_of(user)) == [None]
        return make_user()

    linked = sign_in(create_user=make_user_after_the_link)
    assert (linked.user, linked.created) == (user, False)
    assert accounts() == (1, 1)
