"""One person, one account: however many servers, whichever keys, whatever happens at once."""

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
from django_phi_oidc.errors import NotProvisioned, SubjectKeyMissing
from django_phi_oidc.subjects.identifiers import compute_subject_digest
from django_phi_oidc.subjects.linking import LinkedAccount, create_opaque_username, mark_seen
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
def test_link_at_a_first_sign_in_makes_user_subject_digests_and_event_together() -> None:
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
def test_link_stores_no_raw_sub_anywhere() -> None:
    with capturing() as context:
        sign_in([KEY_1, KEY_2])
        sign_in([KEY_1, KEY_2, KEY_3])
    assert len(context) > 5
    assert not [query["sql"] for query in context.captured_queries if SUB in query["sql"]]


@pytest.mark.django_db
def test_link_of_a_returning_person_is_one_select() -> None:
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
def test_link_with_a_key_added_since_adds_its_digest_once() -> None:
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
def test_link_of_another_sub_or_issuer_is_another_person(other: dict[str, Any]) -> None:
    first = sign_in()
    assert sign_in().user == first.user
    assert sign_in(**other).user != first.user
    assert accounts() == (2, 2)


@pytest.mark.django_db
def test_link_without_a_way_to_create_refuses_the_new_and_knows_the_old() -> None:
    first = sign_in()
    assert sign_in(create_user=None).user == first.user
    with pytest.raises(NotProvisioned) as refused:
        sign_in(sub="somebody else", create_user=None)
    assert refused.value.code == "not_provisioned"
    assert accounts() == (1, 1)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "unknown", [KEY_1, KEY_2, KEY_3, LAST_KEY, SymmetricKey("00000000", bytes(32))], ids=lambda k: k.id
)
def test_link_while_rows_bear_an_unknown_key_refuses_the_new_and_knows_the_old(unknown: SymmetricKey) -> None:
    configured = [key for key in (KEY_3, KEY_1, KEY_2) if key != unknown]
    first = sign_in(configured)
    assert sign_in(configured, sub="before").created
    SubjectDigest.objects.create(subject=first.subject, issuer=ISSUER, key_id=unknown.id, digest="0" * 64)
    assert sign_in(configured).user == first.user
    before = accounts()
    with pytest.raises(SubjectKeyMissing) as refused:
        sign_in(configured, sub="after")
    assert refused.value.code == "subject_key_missing"
    assert accounts() == before
    assert sign_in([*configured, unknown], sub="after").created


@pytest.mark.django_db
def test_link_of_a_person_known_under_a_missing_key_alone_makes_no_second_account() -> None:
    first = sign_in([KEY_1])
    with pytest.raises(SubjectKeyMissing):
        sign_in([KEY_2])
    assert sign_in([KEY_2, KEY_1]).user == first.user
    assert accounts() == (1, 1)


@pytest.mark.django_db
@pytest.mark.parametrize(("older", "newer"), [(KEY_1, KEY_2), (KEY_2, KEY_1)], ids=lambda key: key.id)
def test_link_of_a_person_whom_servers_without_a_common_key_made_twice_finds_the_older(
    older: SymmetricKey, newer: SymmetricKey
) -> None:
    """The other server makes its account between our look-up and ours."""
    others: list[LinkedAccount] = []

    def other_server_first() -> Any:
        others.append(sign_in([older]))
        return make_user()

    ours = sign_in([newer], create_user=other_server_first)
    assert (ours.created, others[0].created) == (True, True)
    assert ours.subject.pk > others[0].subject.pk
    for keys in ([older, newer], [newer, older]):
        assert sign_in(keys).user == others[0].user
    assert accounts() == (2, 2)


@pytest.mark.django_db
def test_link_without_any_key_makes_nothing() -> None:
    with pytest.raises(SubjectKeyMissing):
        sign_in([])
    assert accounts() == (0, 0)


@pytest.mark.django_db
def test_link_at_a_first_sign_in_looks_unknown_keys_up_in_the_index() -> None:
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
def test_link_whose_user_can_not_be_made_leaves_nothing_and_tells_the_fault() -> None:
    make_twin = get_user_model()._default_manager.create_user
    make_twin(username="taken")
    with pytest.raises(IntegrityError):
        sign_in(create_user=lambda: make_twin(username="taken"))
    assert accounts() == (1, 0)
    assert AuditOutbox.objects.count() == 0
    assert sign_in(create_user=lambda: make_twin(username="free")).created


@pytest.mark.django_db
def test_link_rolled_back_by_its_caller_leaves_no_account_and_no_event() -> None:
    with suppress(ZeroDivisionError), transaction.atomic():
        assert sign_in().created
        raise ZeroDivisionError
    assert accounts() == (0, 0)
    assert (SubjectDigest.objects.count(), AuditOutbox.objects.count()) == (0, 0)


@pytest.mark.django_db
def test_mark_seen_moves_the_time_by_one_update() -> None:
    subject = sign_in().subject
    later = NOW + timedelta(hours=1)
    with capturing() as context:
        mark_seen(subject, now=later)
    assert [sql[:6] for sql in statements(context)] == ["UPDATE"]
    assert subject.last_seen_at == later
    subject.refresh_from_db()
    assert (subject.first_seen_at, subject.last_seen_at) == (NOW, later)


@pytest.mark.django_db
def test_mark_seen_of_a_person_deleted_meanwhile_raises() -> None:
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
def test_link_of_two_first_sign_ins_at_once_makes_one_account(
    pair: tuple[list[SymmetricKey], list[SymmetricKey]],
) -> None:
    meeting = Meeting()
    linked = at_once(*(lambda keys=keys: sign_in(keys, create_user=meeting.make_user) for keys in pair))
    assert linked[0].user == linked[1].user
    assert sorted(each.created for each in linked) == [False, True]
    assert accounts() == (1, 1)
    assert {key.id for keys in pair for key in keys} >= set(digests_by_key())
    assert AuditEvent.objects.filter(action="subject.linked").count() == 1
    assert AuditOutbox.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_link_of_many_first_sign_ins_at_once_makes_one_account() -> None:
    lists = [[KEY_1, KEY_2], [KEY_2, KEY_3], [KEY_3, KEY_2, KEY_1], [KEY_2]] * 2
    linked = at_once(*(lambda keys=keys: sign_in(keys) for keys in lists))
    assert len({each.user.pk for each in linked}) == 1
    assert [each.created for each in linked].count(True) == 1
    assert accounts() == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_link_of_a_returning_person_at_once_adds_the_new_digest_once() -> None:
    first = sign_in([KEY_1])
    linked = at_once(*(lambda: sign_in([KEY_2, KEY_3, KEY_1]) for _ in range(4)))
    assert {each.user.pk for each in linked} == {first.user.pk}
    assert SubjectDigest.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_link_that_sees_the_other_servers_new_key_before_its_own_person_finds_the_account() -> None:
    """The other server commits this very person between our look-up and our search for unknown keys."""
    others: list[LinkedAccount] = []

    def other_server_first(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if not others and sql.startswith("SELECT"):
            others.append(at_once(lambda: sign_in([KEY_2, KEY_1]))[0])
        return result

    with connection.execute_wrapper(other_server_first):
        ours = sign_in([KEY_1])
    assert others[0].created
    assert (ours.user, ours.created) == (others[0].user, False)
    assert accounts() == (1, 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("unlinked", [True, False])
def test_link_of_a_person_who_is_unlinked_after_the_look_refuses_them(unlinked: bool) -> None:
    """A key was added since, and its digest has nothing to belong to."""
    first = sign_in([KEY_1])

    def unlink_after_the_look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if unlinked and sql.startswith("SELECT"):
            at_once(PairwiseSubject.objects.all().delete)
        return result

    with connection.execute_wrapper(unlink_after_the_look):
        if unlinked:
            with pytest.raises(NotProvisioned):
                sign_in([KEY_2, KEY_1])
        else:
            assert sign_in([KEY_2, KEY_1]).user == first.user
    assert SubjectDigest.objects.count() == (0 if unlinked else 2)
    assert sign_in([KEY_2, KEY_1]).created is unlinked


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pair", [([1, 2], [1, 2]), ([1, 2], [2, 3])], ids=["the same keys", "one key different"])
def test_link_in_two_processes_at_once_makes_one_account(pair: tuple[list[int], list[int]]) -> None:
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
        answers = [json.loads(server.communicate(timeout=30)[0]) for server in servers]
    assert len({answer["user"] for answer in answers}) == 1
    assert [answer["created"] for answer in answers].count(True) == 1
    assert accounts() == (1, 1)
