"""Subject keys are appended, promoted and removed without losing or duplicating a person."""

import json
import shlex
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from django_phi_oidc.contrib.key_rotation.errors import KeyInUse
from django_phi_oidc.contrib.key_rotation.subject_keys import (
    get_subject_key_usage,
    retire_subject_key,
)
from django_phi_oidc.crypto import keyring
from django_phi_oidc.crypto.keyring import SymmetricKey
from django_phi_oidc.errors import SubjectKeyMissing
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from tests.settings import key
from tests.support.manual_blocks import block, commands
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import (
    KEY_1,
    KEY_2,
    KEY_3,
    Meeting,
    accounts,
    at_once,
    capturing,
    sign_in,
    statements,
)

PAGE = "rotate-subject-keys"
ONE, TWO = key("test subject key 1"), key("test subject key 2")


def use(*keys: SymmetricKey) -> dict[str, tuple[int, int, int, bool]]:
    """Return for each key: digests, persons without one, dependent persons, whether it is removable."""
    actual = get_subject_key_usage([item.id for item in keys])
    return {
        item.id: (item.digests, item.persons_without_digest, item.dependent_persons, item.removable)
        for item in actual.keys
    }


@pytest.mark.django_db
def test_subject_key_usage_counts_what_each_key_is_needed_for() -> None:
    for sub in "abc":
        sign_in([KEY_1], sub=sub)
    assert use(KEY_1) == {KEY_1.id: (3, 0, 3, False)}
    assert use(KEY_1, KEY_2) == {KEY_1.id: (3, 0, 3, False), KEY_2.id: (0, 3, 0, True)}
    for sub in "ab":
        sign_in([KEY_2, KEY_1], sub=sub)
    assert use(KEY_2, KEY_1) == {KEY_2.id: (2, 1, 0, True), KEY_1.id: (3, 0, 1, False)}
    sign_in([KEY_2, KEY_1], sub="c")
    assert use(KEY_2, KEY_1) == {KEY_2.id: (3, 0, 0, True), KEY_1.id: (3, 0, 0, True)}


@pytest.mark.django_db
def test_subject_key_usage_includes_removed_keys_and_dependent_persons() -> None:
    sign_in([KEY_1], sub="a")
    sign_in([KEY_1, KEY_2], sub="b")
    actual = get_subject_key_usage([KEY_2.id])
    assert (actual.persons, actual.unknown_persons) == (2, 1)
    assert [(item.id, item.position) for item in actual.keys] == [(KEY_2.id, 1), (KEY_1.id, None)]
    assert use(KEY_2) == {KEY_2.id: (1, 1, 1, False), KEY_1.id: (2, 0, 1, False)}
    sign_in([KEY_1, KEY_2], sub="a")
    assert use(KEY_2) == {KEY_2.id: (2, 0, 2, False), KEY_1.id: (2, 0, 0, True)}
    assert get_subject_key_usage([KEY_2.id]).unknown_persons == 0


@pytest.mark.django_db
def test_subject_key_usage_without_persons_is_zero() -> None:
    assert use(KEY_1) == {KEY_1.id: (0, 0, 0, False)}


@pytest.mark.django_db
def test_subject_key_usage_executes_one_query_per_key_and_three_more() -> None:
    sign_in([KEY_1, KEY_2])
    with capturing() as context:
        get_subject_key_usage([KEY_1.id, KEY_2.id, KEY_3.id])
    assert len(statements(context)) == 6
    assert all("COUNT(" in sql for sql in statements(context))


@pytest.mark.django_db
def test_retiring_a_removed_key_deletes_only_its_digests() -> None:
    for sub in "abcde":
        sign_in([KEY_1, KEY_2, KEY_3], sub=sub)
    progress_counts: list[int] = []
    assert (
        retire_subject_key(
            KEY_1.id, configured_key_ids=[KEY_2.id, KEY_3.id], batch_size=2, progress=progress_counts.append
        )
        == 5
    )
    assert progress_counts == [2, 4, 5]
    assert set(SubjectDigest.objects.values_list("key_id", flat=True)) == {KEY_2.id, KEY_3.id}
    assert SubjectDigest.objects.count() == 10
    assert retire_subject_key(KEY_1.id, configured_key_ids=[KEY_2.id, KEY_3.id]) == 0


@pytest.mark.django_db
def test_retiring_a_configured_key_is_refused() -> None:
    sign_in([KEY_1, KEY_2])
    with pytest.raises(KeyInUse, match="is configured") as refused:
        retire_subject_key(KEY_1.id, configured_key_ids=[KEY_2.id, KEY_1.id])
    assert refused.value.code == "key_in_use"
    assert SubjectDigest.objects.count() == 2


@pytest.mark.django_db
def test_retiring_a_key_with_dependent_persons_is_refused() -> None:
    for sub in "abc":
        sign_in([KEY_1], sub=sub)
    sign_in([KEY_1, KEY_2], sub="a")
    with pytest.raises(KeyInUse, match="2 persons"):
        retire_subject_key(KEY_1.id, configured_key_ids=[KEY_2.id])
    assert SubjectDigest.objects.count() == 4
    for sub in "bc":
        sign_in([KEY_1, KEY_2], sub=sub)
    assert retire_subject_key(KEY_1.id, configured_key_ids=[KEY_2.id]) == 3


@pytest.mark.django_db
def test_retiring_a_key_deletes_no_needed_digest_despite_concurrent_changes() -> None:
    """No sign-in leaves such a person next to digests of other keys, but a restored backup may."""
    people = [sign_in([KEY_1, KEY_2], sub=sub).subject for sub in "abc"]

    def restore(done: int) -> None:
        SubjectDigest.objects.filter(subject=people[2], key_id=KEY_2.id).delete()

    with pytest.raises(KeyInUse, match="1 persons"):
        retire_subject_key(KEY_1.id, configured_key_ids=[KEY_2.id], batch_size=1, progress=restore)
    assert set(SubjectDigest.objects.filter(key_id=KEY_1.id).values_list("subject", flat=True)) == {people[2].pk}
    assert sign_in([KEY_2, KEY_1], sub="c").subject == people[2]
    assert retire_subject_key(KEY_1.id, configured_key_ids=[KEY_2.id]) == 1


@pytest.mark.django_db
def test_stopped_retirement_is_continued() -> None:
    for sub in "abc":
        sign_in([KEY_1, KEY_2], sub=sub)

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retire_subject_key(KEY_1.id, configured_key_ids=[KEY_2.id], batch_size=1, progress=stop)
    assert SubjectDigest.objects.filter(key_id=KEY_1.id).count() == 2
    assert retire_subject_key(KEY_1.id, configured_key_ids=[KEY_2.id], batch_size=1) == 2


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("shared", [[], [KEY_3]], ids=["disjoint lists", "a key in both lists"])
def test_concurrent_retirements_with_different_lists_lose_no_person(shared: list[SymmetricKey]) -> None:
    sign_in([KEY_1, KEY_2, *shared])
    meeting = Meeting()

    def meet_at_deletion(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("DELETE"):
            meeting.wait()
        return execute(sql, params, many, context)

    def retire_at(going: SymmetricKey, kept: SymmetricKey) -> int | None:
        with connection.execute_wrapper(meet_at_deletion):
            try:
                return retire_subject_key(going.id, configured_key_ids=[key.id for key in (kept, *shared)])
            except KeyInUse:
                return None

    retired = at_once(lambda: retire_at(KEY_1, KEY_2), lambda: retire_at(KEY_2, KEY_1))
    assert sorted(retired, key=str) == ([1, 1] if shared else [1, None])
    assert SubjectDigest.objects.count() == 1
    assert not sign_in([KEY_1, KEY_2, *shared]).created


class Operator:
    """Follows the documentation, command by command, on a portal whose key list changes."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        displayed = [*commands(PAGE, "status"), *commands(PAGE, "retire")]
        self.shown: Iterator[str] = iter(shlex.join(words[2:]) for words in displayed)

    def configure(self, *texts: str) -> list[SymmetricKey]:
        self.settings.PHI_OIDC = override_phi_oidc(self.settings.PHI_OIDC, KEYS={"subject": list(texts)})
        return list(keyring.get_keys("subject"))

    def run(self, command: str) -> str:
        out = StringIO()
        call_command(*shlex.split(command), stdout=out, stderr=StringIO())
        return out.getvalue()

    def run_next(self, **replaced: str) -> str:
        command = next(self.shown)
        for old, new in replaced.items():
            command = command.replace(old.removeprefix("_"), new)
        return self.run(command)

    def status(self) -> dict[str, tuple[int | None, int, bool]]:
        keys = json.loads(self.run("phi_oidc keys status --json"))["subject_keys"]["keys"]
        return {item["id"]: (item["position"], item["dependent_persons"], item["removable"]) for item in keys}


@pytest.mark.django_db(transaction=True)
def test_documented_rotation_duplicates_and_loses_no_person(settings: Any) -> None:
    """Two servers with different lists between restarts, and all persons on both at the same time."""
    operator = Operator(settings)
    people = [f"person {number}" for number in range(4)]
    accounts_of: dict[str, set[Any]] = {sub: set() for sub in [*people, "dormant"]}

    def everybody_signs_in(*servers: list[SymmetricKey], subs: list[str]) -> None:
        for sub in subs:
            pair = at_once(*(lambda keys=keys, sub=sub: user_at(keys, sub) for keys in servers))
            # A new person may be refused where a key is missing, but not on both servers; a known person never.
            assert pair.count(None) <= (0 if accounts_of[sub] else 1)
            accounts_of[sub] |= set(pair) - {None}
        assert {len(users) for users in accounts_of.values()} <= {0, 1}

    one = operator.configure(ONE)
    everybody_signs_in(one, one, subs=[*people[:2], "dormant"])
    old = one[0].id
    printed = operator.run_next()
    assert "needed for 3 persons" in printed
    expected = block(PAGE, "status").partition("\n")[2]
    assert expected.replace("1000", "3").replace("4f2c9d1e", old) in printed

    one_two = operator.configure(ONE, TWO)
    new = one_two[1].id
    everybody_signs_in(one, one_two, subs=people[:3])
    with pytest.raises(SubjectKeyMissing):
        sign_in(one, sub="new at a server that lacks the new key")
    two_one = operator.configure(TWO, ONE)
    everybody_signs_in(one_two, two_one, subs=people)

    assert operator.status() == {new: (1, 0, True), old: (2, 1, False)}, "the dormant person"
    assert "needed for 1 persons" in operator.run_next()
    two = operator.configure(TWO)
    with pytest.raises(CommandError, match="1 persons"):
        operator.run(f"phi_oidc keys retire {old}")
    with pytest.raises(SubjectKeyMissing):
        sign_in(two, sub="dormant")
    operator.configure(TWO, ONE)
    everybody_signs_in(two_one, two_one, subs=["dormant"])
    assert "may be removed" in operator.run("phi_oidc keys status").splitlines()[2]

    operator.configure(TWO)
    everybody_signs_in(two_one, two, subs=[*people, "dormant"])
    with pytest.raises(SubjectKeyMissing):
        sign_in(two, sub="somebody new")
    assert checks() == ["django_phi_oidc.E018"]
    assert operator.run_next(_4f2c9d1e=old) == f"5 digests of key {old} were deleted.\n"
    assert checks() == []
    everybody_signs_in(two, two, subs=[*people, "dormant"])
    assert sign_in(two, sub="somebody new").created
    assert accounts() == (6, 6)
    assert operator.status() == {new: (1, 6, False)}
    assert list(operator.shown) == []


def user_at(keys: list[SymmetricKey], sub: str) -> Any:
    """Return the pk of the account that the sign-in finds; None when a missing key refuses it."""
    try:
        return sign_in(keys, sub=sub).user.pk
    except SubjectKeyMissing:
        return None


def checks() -> list[str | None]:
    actual = run_checks(tags=["database"], databases=["default"])
    return [message.id for message in actual if str(message.id).startswith("django_phi_oidc.E")]


@pytest.mark.django_db
def test_deleting_a_person_deletes_the_digests_and_frees_the_key() -> None:
    sign_in([KEY_1], sub="dormant")
    sign_in([KEY_1, KEY_2], sub="a")
    assert use(KEY_2, KEY_1)[KEY_1.id][2:] == (1, False)
    with transaction.atomic():
        PairwiseSubject.objects.order_by("pk")[0].delete()
    assert use(KEY_2, KEY_1)[KEY_1.id][2:] == (0, True)
