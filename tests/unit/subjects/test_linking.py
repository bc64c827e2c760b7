"""One person gets one account, with several servers, different key lists and concurrent sign-ins."""

import base64
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, connections, transaction

from django_phi_oidc.audit.events import parse_event
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.crypto.keyring import SymmetricKey
from django_phi_oidc.errors import AccountNotSaved, NotProvisioned, SubjectAltered, SubjectKeyMissing
from django_phi_oidc.subjects.identifiers import compute_subject_digest
from django_phi_oidc.subjects.linking import (
    LinkedAccount,
    create_opaque_username,
    find_linked_subject,
    list_subject_ids,
    mark_seen,
)
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from tests.support import databases
from tests.support.subject_linking import (
    ISSUER,
    KEY_1,
    KEY_2,
    KEY_3,
    LAST_KEY,
    NOW,
    SUB,
    Meeting,
    accounts,
    at_once,
    capturing,
    digests_by_key,
    make_user,
    sign_in,
    statements,
)

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("sign_in_process.py")


@pytest.mark.django_db
def test_first_sign_in_creates_user_subject_digests_and_event() -> None:
    with capturing() as context:
        linked = sign_in([KEY_2, KEY_1])
    assert linked.created
    assert (linked.subject.user, linked.subject.issuer) == (linked.user, ISSUER)
    assert (linked.subject.first_seen_at, linked.subject.last_seen_at) == (NOW, NOW)
    assert digests_by_key() == {
        key.id: compute_subject_digest(key.material, issuer=ISSUER, sub=SUB) for key in (KEY_1, KEY_2)
    }
    event = parse_event(AuditOutbox.objects.get().event).event
    assert (event.action, event.subject, event.provider) == ("subject.linked", str(linked.subject.uuid), "default")
    assert (event.client_ip, json.loads(event.detail)) == ("192.0.2.1", {"created": True})
    assert event.resource == f"user/{linked.user.pk}"
    assert len([sql for sql in statements(context) if sql.startswith("INSERT")]) == 4


@pytest.mark.django_db
def test_raw_sub_is_in_no_statement() -> None:
    with capturing() as context:
        sign_in([KEY_1, KEY_2])
        sign_in([KEY_1, KEY_2, KEY_3])
    assert len(context) > 5
    assert not [query["sql"] for query in context.captured_queries if SUB in query["sql"]]


@pytest.mark.django_db
def test_known_person_takes_one_select() -> None:
    first = sign_in([KEY_1, KEY_2])
    with capturing() as context:
        again = sign_in([KEY_1, KEY_2], now=NOW + timedelta(days=1))
        assert again.user.is_active
        assert again.subject.user == again.user
    assert [sql[:6] for sql in statements(context)] == ["SELECT"]
    assert len(context) == 1
    assert (again.user, again.subject, again.created) == (first.user, first.subject, False)
    assert AuditOutbox.objects.count() == 1


@pytest.mark.django_db
def test_new_key_adds_its_digest_once() -> None:
    first = sign_in([KEY_1])
    with capturing() as context:
        assert sign_in([KEY_2, KEY_1]).user == first.user
    assert [sql[:6] for sql in statements(context)] == ["SELECT", "INSERT"]
    with capturing() as context:
        assert sign_in([KEY_2, KEY_1]).user == first.user
    assert [sql[:6] for sql in statements(context)] == ["SELECT"]
    assert set(digests_by_key()) == {KEY_1.id, KEY_2.id}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "other", [{"sub": SUB + "2"}, {"sub": SUB.upper()}, {"issuer": ISSUER + "/"}], ids=["sub", "case", "issuer"]
)
def test_another_sub_or_issuer_is_another_person(other: dict[str, Any]) -> None:
    first = sign_in()
    assert sign_in().user == first.user
    assert sign_in(**other).user != first.user
    assert accounts() == (2, 2)


@pytest.mark.django_db
def test_without_create_user_only_known_persons_sign_in() -> None:
    first = sign_in()
    assert sign_in(create_user=None).user == first.user
    with pytest.raises(NotProvisioned) as refusal:
        sign_in(sub="unknown", create_user=None)
    assert refusal.value.code == "not_provisioned"
    assert accounts() == (1, 1)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "unknown", [KEY_1, KEY_2, KEY_3, LAST_KEY, SymmetricKey("00000000", bytes(32))], ids=lambda k: k.id
)
def test_with_an_unknown_key_only_known_persons_sign_in(unknown: SymmetricKey) -> None:
    configured = [key for key in (KEY_3, KEY_1, KEY_2) if key != unknown]
    first = sign_in(configured)
    assert sign_in(configured, sub="before").created
    SubjectDigest.objects.create(subject=first.subject, issuer=ISSUER, key_id=unknown.id, digest="0" * 64)
    assert sign_in(configured).user == first.user
    before = accounts()
    with pytest.raises(SubjectKeyMissing) as refusal:
        sign_in(configured, sub="after")
    assert refusal.value.code == "subject_key_missing"
    assert accounts() == before
    assert sign_in([*configured, unknown], sub="after").created


@pytest.mark.django_db
def test_person_known_under_a_missing_key_gets_no_second_account() -> None:
    first = sign_in([KEY_1])
    with pytest.raises(SubjectKeyMissing):
        sign_in([KEY_2])
    assert sign_in([KEY_2, KEY_1]).user == first.user
    assert accounts() == (1, 1)


@pytest.mark.django_db
@pytest.mark.parametrize(("older", "newer"), [(KEY_1, KEY_2), (KEY_2, KEY_1)], ids=lambda key: key.id)
def test_older_of_two_accounts_of_a_person_is_used(older: SymmetricKey, newer: SymmetricKey) -> None:
    """The other server creates its account between the look-up and the insert of this one."""
    others: list[LinkedAccount] = []

    def other_server_first() -> Any:
        others.append(sign_in([older]))
        return make_user()

    own = sign_in([newer], create_user=other_server_first)
    assert (own.created, others[0].created) == (True, True)
    assert own.subject.pk > others[0].subject.pk
    for keys in ([older, newer], [newer, older]):
        assert sign_in(keys).user == others[0].user
    assert accounts() == (2, 2)


@pytest.mark.django_db
def test_first_sign_in_without_keys_is_refused() -> None:
    with pytest.raises(SubjectKeyMissing):
        sign_in([])
    assert accounts() == (0, 0)


@pytest.mark.django_db
def test_unknown_keys_are_looked_up_in_the_index() -> None:
    sign_in([KEY_1, KEY_2])
    with capturing() as context:
        sign_in([KEY_1, KEY_2], sub="another")
    lookup = [sql for sql in statements(context) if "key_id" in sql and sql.startswith("SELECT")][-1]
    assert "NOT" not in lookup
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {lookup}")
            plan = " ".join(row[3] for row in cursor.fetchall())
        assert "SCAN" not in plan


@pytest.mark.django_db
def test_error_of_create_user_leaves_no_rows() -> None:
    create_user = get_user_model()._default_manager.create_user
    create_user(username="taken")
    with pytest.raises(AccountNotSaved) as refusal:
        sign_in(create_user=lambda: create_user(username="taken"))
    assert isinstance(refusal.value.__cause__, IntegrityError)
    assert accounts() == (1, 0)
    assert AuditOutbox.objects.count() == 0
    assert sign_in(create_user=lambda: create_user(username="free")).created


@pytest.mark.django_db
def test_rolled_back_sign_in_leaves_no_account_and_no_event() -> None:
    with suppress(ZeroDivisionError), transaction.atomic():
        assert sign_in().created
        raise ZeroDivisionError
    assert accounts() == (0, 0)
    assert (SubjectDigest.objects.count(), AuditOutbox.objects.count()) == (0, 0)


@pytest.mark.django_db
def test_mark_seen_takes_one_update() -> None:
    subject = sign_in().subject
    later = NOW + timedelta(hours=1)
    with capturing() as context:
        mark_seen(subject, now=later)
    assert [sql[:6] for sql in statements(context)] == ["UPDATE"]
    assert subject.last_seen_at == later
    subject.refresh_from_db()
    assert (subject.first_seen_at, subject.last_seen_at) == (NOW, later)


@pytest.mark.django_db
def test_mark_seen_of_a_deleted_subject_raises() -> None:
    linked = sign_in()
    linked.user.delete()
    with pytest.raises(PairwiseSubject.DoesNotExist):
        mark_seen(linked.subject, now=NOW)


def test_opaque_username_is_phi_and_26_base32_characters() -> None:
    names = {create_opaque_username() for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch("phi_[a-z2-7]{26}", name) for name in names)


PAIRS = {
    "the same keys": ([KEY_1, KEY_2], [KEY_1, KEY_2]),
    "in another order": ([KEY_1, KEY_2], [KEY_2, KEY_1]),
    "one key more": ([KEY_1], [KEY_2, KEY_1]),
    "one key different": ([KEY_1, KEY_2], [KEY_2, KEY_3]),
    "one key different, older shared": ([KEY_1, KEY_2], [KEY_3, KEY_1]),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_two_concurrent_first_sign_ins_create_one_account(
    pair: tuple[list[SymmetricKey], list[SymmetricKey]],
) -> None:
    meeting = Meeting()
    linked = at_once(*(lambda keys=keys: sign_in(keys, create_user=meeting.make_user) for keys in pair))
    assert linked[0].user == linked[1].user
    assert sorted(account.created for account in linked) == [False, True]
    assert accounts() == (1, 1)
    assert {key.id for keys in pair for key in keys} >= set(digests_by_key())
    assert AuditEvent.objects.filter(action="subject.linked").count() == 1
    assert AuditOutbox.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_many_concurrent_first_sign_ins_create_one_account() -> None:
    lists = [[KEY_1, KEY_2], [KEY_2, KEY_3], [KEY_3, KEY_2, KEY_1], [KEY_2]] * 2
    linked = at_once(*(lambda keys=keys: sign_in(keys) for keys in lists))
    assert len({account.user.pk for account in linked}) == 1
    assert [account.created for account in linked].count(True) == 1
    assert accounts() == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_concurrent_sign_ins_add_a_new_digest_once() -> None:
    first = sign_in([KEY_1])
    linked = at_once(*(lambda: sign_in([KEY_2, KEY_3, KEY_1]) for _ in range(4)))
    assert {account.user.pk for account in linked} == {first.user.pk}
    assert SubjectDigest.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_account_committed_between_two_queries_is_found() -> None:
    """The other server commits this person between the look-up and the search for unknown keys."""
    others: list[LinkedAccount] = []

    def other_server_first(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if not others and sql.startswith("SELECT"):
            others.append(at_once(lambda: sign_in([KEY_2, KEY_1]))[0])
        return result

    with connection.execute_wrapper(other_server_first):
        own = sign_in([KEY_1])
    assert others[0].created
    assert (own.user, own.created) == (others[0].user, False)
    assert accounts() == (1, 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("unlinked", [True, False])
def test_person_unlinked_during_the_sign_in_is_refused(unlinked: bool) -> None:
    """The digest under a new key has no subject to refer to."""
    first = sign_in([KEY_1])

    def unlink_after_select(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if unlinked and sql.startswith("SELECT"):
            at_once(PairwiseSubject.objects.all().delete)
        return result

    with connection.execute_wrapper(unlink_after_select):
        if unlinked:
            with pytest.raises(NotProvisioned):
                sign_in([KEY_2, KEY_1])
        else:
            assert sign_in([KEY_2, KEY_1]).user == first.user
    assert SubjectDigest.objects.count() == (0 if unlinked else 2)
    assert sign_in([KEY_2, KEY_1]).created is unlinked


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pair", [([1, 2], [1, 2]), ([1, 2], [2, 3])], ids=["the same keys", "one key different"])
def test_first_sign_ins_in_two_processes_create_one_account(pair: tuple[list[int], list[int]]) -> None:
    environment = databases.child_environment(
        os.environ, {alias: connections[alias].settings_dict for alias in databases.ALIASES}
    )
    lists = [",".join(base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in numbers) for numbers in pair]
    servers = [
        subprocess.Popen(
            [sys.executable, PROGRAM, ISSUER, SUB, key_list],
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for key_list in lists
    ]
    with servers[0], servers[1]:
        assert [server.stdout.readline() for server in servers if server.stdout] == ["ready\n", "ready\n"]
        for server in servers:
            assert server.stdin
            server.stdin.write("go\n")
            server.stdin.flush()
        results = [json.loads(server.communicate(timeout=30)[0]) for server in servers]
    assert len({result["user"] for result in results}) == 1
    assert [result["created"] for result in results].count(True) == 1
    assert accounts() == (1, 1)


@pytest.mark.django_db
def test_f7_link_stays_valid_when_subject_keys_rotate() -> None:
    first = sign_in([KEY_1])
    assert sign_in([KEY_2, KEY_1]).user == first.user
    assert set(digests_by_key()) == {KEY_1.id, KEY_2.id}
    SubjectDigest.objects.filter(key_id=KEY_1.id).delete()
    assert sign_in([KEY_3, KEY_2]).user == first.user
    assert sign_in([KEY_3]).user == first.user
    assert accounts() == (1, 1)


@pytest.mark.django_db
@pytest.mark.parametrize("keys", [[KEY_1], [KEY_2, KEY_1]])
def test_f7_changed_link_is_refused_and_a_new_link_is_valid(keys: list[SymmetricKey]) -> None:
    first, other = sign_in([KEY_1]), make_user()
    PairwiseSubject.objects.update(user=other)
    with pytest.raises(SubjectAltered):
        sign_in(keys, create_user=None)
    assert set(digests_by_key()) == {KEY_1.id}, "no digest was added to the changed link"
    with pytest.raises(SubjectAltered):
        find_linked_subject(issuer=ISSUER, sub=SUB, keys=keys)
    assert list_subject_ids(issuer=ISSUER, sub=SUB, keys=keys) == [first.subject.pk], "a logout ends its sessions"
    PairwiseSubject.objects.get().delete()
    assert sign_in(keys, create_user=lambda: other).user == other
    assert sign_in(keys).user == other
