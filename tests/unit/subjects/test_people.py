"""The names of people on the pages of the admin."""

import uuid
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_user_model
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.event_people import People
from django_phi_oidc.subjects.models import PairwiseSubject
from django_phi_oidc.subjects.people import find_people, get_person
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import NOW, capturing, statements

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


def initials(user: Any) -> str:
    return f"{user.first_name[:1]}. {user.last_name}"


def fail(user: Any) -> str:
    raise LookupError(user.first_name)


def return_nothing(user: Any) -> None:
    return None


def label_by(function: Any) -> Any:
    return override_settings(
        PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, PERSON_LABEL=f"{__name__}.{function.__name__}")
    )


@pytest.fixture
def amina() -> Any:
    users = get_user_model()._default_manager
    return users.create_user(username="phi_2bxr", first_name="Amina", last_name="Okafor")


def add_subject(user: Any) -> str:
    row = PairwiseSubject.objects.create(
        uuid=uuid.uuid4(), user=user, issuer="https://op.example.test", first_seen_at=NOW, last_seen_at=NOW
    )
    return str(row.uuid)


def test_page_of_a_key_with_special_characters_is_that_of_this_account() -> None:
    url = get_person(get_user_model()(pk="a_5Fb/c", username="amina")).url
    assert (url, unquote(url.split("/")[-2])) == ("/admin/django_phi_oidc/person/a_5F5Fb_2Fc/", "a_5Fb/c")


def test_label_is_the_full_name_or_the_user_name_without_one(amina: Any) -> None:
    assert get_person(amina).label == "Amina Okafor"
    amina.first_name = amina.last_name = ""
    assert get_person(amina).label == "phi_2bxr"


def test_function_of_the_project_makes_the_label(amina: Any) -> None:
    with label_by(initials):
        assert get_person(amina).label == "A. Okafor"


@pytest.mark.parametrize("function", [fail, return_nothing])
def test_user_name_replaces_the_label_of_a_function_that_fails(
    function: Any, amina: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with label_by(function):
        assert get_person(amina).label == "phi_2bxr"
    assert "Amina" not in caplog.text


def find(**names: list[str]) -> tuple[People, CaptureQueriesContext]:
    with capturing() as queries:
        people = find_people(**names)
    return people, queries


def test_actors_and_subjects_are_found_by_one_query(amina: Any) -> None:
    first, second = add_subject(amina), add_subject(amina)
    bea = get_user_model()._default_manager.create_user(username="bea")
    people, queries = find(
        actors=[str(bea.pk), "os:root@host", f"os:root@host;as={amina.pk}", "", "999999"],
        subjects=[first, second, str(uuid.uuid4()), "not-a-uuid"],
    )
    assert len(statements(queries)) == 1
    assert str(people.find_actor(str(bea.pk))) == "bea"
    assert people.find_actor(f"os:root@host;as={amina.pk}") == get_person(amina)
    assert people.find_subject(first) == people.find_subject(second) == get_person(amina)
    assert people.find_actor("999999") is people.find_actor("os:root@host") is people.find_actor("") is None


def test_page_without_people_needs_no_query() -> None:
    people, queries = find(actors=["", "os:root@host"], subjects=[""])
    assert statements(queries) == []
    assert people.find_subject("") is None
