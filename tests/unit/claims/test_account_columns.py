"""Which claims are found in the columns of an account."""

from datetime import date
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models
from django.test.utils import isolate_apps

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.claims.account_columns import build_account_claim_events, list_claims_in_account
from django_phi_oidc.fields import SealedTextField
from tests.support.session_fixtures import NOW


def make_account(**columns: Any) -> Any:
    return get_user_model()(pk=4711, **columns)


@pytest.mark.parametrize(
    ("columns", "value", "is_found"),
    [
        ({"first_name": "Amina"}, "Amina", True),
        ({"first_name": " Dr. AMINA Okafor"}, "Amina ", True),
        ({"first_name": "Amina"}, "Aminata", False),
        ({"last_name": "f"}, "f", True),
        ({"last_name": "from"}, "f", False),
        ({"last_name": "Uppsala"}, {"locality": "Uppsala", "country": "SE"}, True),
        ({"last_name": "Uppsala"}, {"locality": "Lund", "country": "SE"}, False),
        ({"last_name": "nurse"}, ["nurse", "privacy"], True),
        ({"last_name": ""}, "", False),
        ({"is_staff": True}, True, False),
        ({"password": "a secret"}, "secret", False),
        ({}, "4711", False),
    ],
)
def test_claim_is_found_by_its_value(columns: dict[str, Any], value: Any, is_found: bool) -> None:
    found = list_claims_in_account(make_account(**columns), {"one": value, "other": "elsewhere"})
    assert found == (("one",) if is_found else ())


@isolate_apps("django.contrib.auth", "django.contrib.contenttypes")
def test_date_is_compared_as_in_a_claim() -> None:
    class Born(AbstractBaseUser):
        birthdate = models.DateField()

        class Meta:
            app_label = "auth"

    account: Any = Born(birthdate=date(1984, 3, 9))
    assert list_claims_in_account(account, {"birthdate": "1984-03-09"}) == ("birthdate",)
    assert list_claims_in_account(account, {"birthdate": "1984-03-10"}) == ()


@isolate_apps("django.contrib.auth", "django.contrib.contenttypes")
def test_encrypted_column_is_left_out() -> None:
    class Sealed(AbstractBaseUser):
        name = SealedTextField(bind=("id",))

        class Meta:
            app_label = "auth"

    account: Any = Sealed(pk=7, name="Amina")
    assert list_claims_in_account(account, {"name": "Amina"}) == ("name",), "not encrypted yet"
    Sealed._meta.get_field("name").encrypt(account)
    assert list_claims_in_account(account, {"name": "Amina"}) == ()


@pytest.mark.django_db
def test_deferred_column_is_not_fetched(django_assert_num_queries: Any) -> None:
    get_user_model().objects.create_user("someone", first_name="Amina")
    account = get_user_model().objects.defer("first_name").get()
    with django_assert_num_queries(0):
        assert list_claims_in_account(account, {"name": "Amina"}) == ()


def test_many_claims_take_several_events() -> None:
    names = tuple(f"claim{number:03}" for number in range(65))
    found = list(build_account_claim_events(names, origin=Origin(), now=NOW))
    assert [len(event.detail["claims"]) for event in found] == [64, 1]
    assert {event.action for event in found} == {Action.CLAIM_STORED}
    assert list(build_account_claim_events((), origin=Origin(), now=NOW)) == []
