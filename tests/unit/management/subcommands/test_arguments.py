"""How subcommands name users."""

import uuid
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError

from django_phi_oidc.management.subcommands._arguments import describe_user, get_user
from tests.support.claims_fixtures import Person

pytestmark = pytest.mark.django_db


def create_user(name: str, **fields: Any) -> Any:
    return get_user_model()._default_manager.create_user(username=name, **fields)


def refused(reference: str) -> str:
    with pytest.raises(CommandError) as refusal:
        get_user(reference)
    return str(refusal.value)


def test_user_is_named_by_name_by_primary_key_or_by_subject() -> None:
    person, _ = Person(user=create_user("amina")), Person()
    for reference in ("amina", f"pk:{person.user.pk}", f"uuid:{person.subject.uuid}"):
        assert get_user(reference) == person.user


def test_number_is_a_user_name() -> None:
    first = create_user("jonas")
    assert refused(str(first.pk)) == f"There is no user {first.pk}. If this is a primary key, write pk:{first.pk}."
    named = create_user(str(first.pk))
    assert get_user(str(first.pk)) == named != first
    assert get_user(f"pk:{first.pk}") == first


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "amin",
        "Amina",
        "amina ",
        "pk:",
        "pk:0",
        "pk:amina",
        f"pk:{'9' * 30}",
        "uuid:",
        "uuid:x",
        f"uuid:{uuid.UUID(int=4)}",
    ],
)
def test_unknown_user_is_refused(reference: str) -> None:
    create_user("amina")
    assert refused(reference) == f"There is no user {reference}."
    assert get_user("amina")


def test_uuid_without_prefix_is_refused_with_both_forms() -> None:
    person = Person()
    text = str(person.subject.uuid)
    assert refused(text).endswith(
        f" If this is a subject in the audit log, write uuid:{text}; if it is a primary key, pk:{text}."
    )


def test_text_that_names_two_users_is_refused() -> None:
    victim = create_user("jonas")
    attacker = create_user(f"pk:{victim.pk}")
    assert refused(f"pk:{victim.pk}") == f"pk:{victim.pk} is also the user name of another user, so it is ambiguous."
    attacker.delete()
    assert get_user(f"pk:{victim.pk}") == victim


def test_control_characters_are_escaped_and_long_texts_cut() -> None:
    assert refused("\x1b[2J\x00") == r"There is no user '\x1b[2J\x00'."
    assert refused("x" * 9999) == f"There is no user {'x' * 64}."


@pytest.mark.parametrize("name", ["amina", "42", "zoë@example.org", "a b"])
def test_user_is_described_by_the_name(name: str) -> None:
    user = create_user(name)
    assert describe_user(user) == name
    assert get_user(describe_user(user)) == user


@pytest.mark.parametrize("name", ["pk:1", "uuid:", "a\nb", "\u202eamina"])
def test_user_with_a_name_that_cannot_be_given_is_described_by_the_primary_key(name: str) -> None:
    user = create_user(name)
    assert describe_user(user) == f"pk:{user.pk}"
    assert get_user(describe_user(user)) == user
