"""What another system calls a person: one name for ever, and none that a third system knows."""

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import IntegrityError, connection
from django.utils.functional import SimpleLazyObject

from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import KeyMissing
from django_phi_oidc.subjects import pairwise
from django_phi_oidc.subjects.models import PairwiseIdentifier
from tests.settings import key
from tests.support.subject_linking import at_once, capturing, make_user, statements

BILLING, LAB = "billing.example.org", "lab.example.org"
OLD, NEW = key("test pairwise key 1"), key("test pairwise key 2")


@pytest.fixture(autouse=True)
def _keys(settings: Any) -> None:
    use_keys(settings, [OLD])


def use_keys(settings: Any, keys: list[str] | None) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PAIRWISE_KEY": keys}


@pytest.mark.django_db
def test_pairwise_id_is_one_for_each_user_and_sector_and_stays() -> None:
    users = [make_user() for _ in range(3)]
    found = {(user.pk, sector): pairwise.get_pairwise_id(user, sector) for user in users for sector in (BILLING, LAB)}
    assert len(set(found.values())) == 6
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in found.values())
    again = {(user.pk, sector): pairwise.get_pairwise_id(user, sector) for user in users for sector in (LAB, BILLING)}
    assert again == found


@pytest.mark.django_db
def test_pairwise_id_that_exists_is_one_select_and_needs_no_key(settings: Any) -> None:
    user = make_user()
    value = pairwise.get_pairwise_id(user, BILLING)
    for keys in ([NEW, OLD], [NEW], None):
        use_keys(settings, keys)
        with capturing() as context:
            assert pairwise.get_pairwise_id(user, BILLING) == value
        assert [sql[:6] for sql in statements(context)] == ["SELECT"]


@pytest.mark.django_db
def test_pairwise_id_at_first_use_is_made_by_the_newest_key(settings: Any) -> None:
    user = make_user()
    under_old = pairwise.get_pairwise_id(user, BILLING)
    PairwiseIdentifier.objects.all().delete()
    use_keys(settings, [OLD, NEW])
    assert pairwise.get_pairwise_id(user, BILLING) == under_old
    PairwiseIdentifier.objects.all().delete()
    use_keys(settings, [NEW, OLD])
    assert pairwise.get_pairwise_id(user, BILLING) != under_old


@pytest.mark.django_db
def test_pairwise_id_at_first_use_without_a_key_is_an_error_and_stores_nothing(settings: Any) -> None:
    user = make_user()
    use_keys(settings, None)
    with pytest.raises(KeyMissing, match="PAIRWISE_KEY"):
        pairwise.get_pairwise_id(user, BILLING)
    assert not PairwiseIdentifier.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "sector",
    ["", " ", "Billing.example.org", "billing.example.org/", "https://billing.example.org", "billing\n", "-b", "b.",
     "bülling.example", "a" * 256],
)  # fmt: skip
def test_pairwise_id_of_what_is_no_host_name_is_an_error(sector: str) -> None:
    user = make_user()
    with pytest.raises(ValueError, match="host name"):
        pairwise.get_pairwise_id(user, sector)
    assert pairwise.get_pairwise_id(user, "a" * 255) != pairwise.get_pairwise_id(user, "b")


@pytest.mark.django_db
def test_pairwise_id_of_nobody_is_an_error() -> None:
    for nobody in (AnonymousUser(), get_user_model()(username="not saved")):
        with pytest.raises(ValueError, match="not saved"):
            pairwise.get_pairwise_id(nobody, BILLING)  # type: ignore[arg-type]


@pytest.mark.django_db
def test_pairwise_id_of_a_requests_lazy_user_is_the_users() -> None:
    user = make_user()
    lazy: Any = SimpleLazyObject(lambda: user)
    assert pairwise.get_pairwise_id(lazy, BILLING) == pairwise.get_pairwise_id(user, BILLING)


@pytest.mark.django_db
def test_pairwise_id_goes_with_its_user() -> None:
    user, other = make_user(), make_user()
    pairwise.get_pairwise_id(user, BILLING)
    kept = pairwise.get_pairwise_id(other, BILLING)
    user.delete()
    assert [each.value for each in PairwiseIdentifier.objects.all()] == [kept]


@pytest.mark.django_db
@pytest.mark.parametrize("taken", ["user and sector", "sector and value"])
def test_pairwise_identifiers_are_unique_in_the_database(taken: str) -> None:
    user, other = make_user(), make_user()
    value = pairwise.get_pairwise_id(user, BILLING)
    twin = (user, "0" * 64) if taken == "user and sector" else (other, value)
    with pytest.raises(IntegrityError):
        PairwiseIdentifier.objects.create(user=twin[0], sector=BILLING, value=twin[1])


@pytest.mark.django_db(transaction=True)
def test_pairwise_id_of_many_first_uses_at_once_is_one_value() -> None:
    user = make_user()
    values = at_once(*(lambda: pairwise.get_pairwise_id(user, BILLING) for _ in range(6)))
    assert set(values) == {PairwiseIdentifier.objects.get().value}


@pytest.mark.django_db(transaction=True)
def test_pairwise_id_that_a_server_with_another_key_stored_after_the_look_is_that_one(settings: Any) -> None:
    user = make_user()
    others: list[str] = []
    stored = PairwiseIdentifier(user=user, sector=BILLING, value="f" * 64)

    def other_server_first(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if not others:
            others.append("")
            at_once(stored.save)
        return result

    with connection.execute_wrapper(other_server_first):
        assert pairwise.get_pairwise_id(user, BILLING) == "f" * 64
    assert keyring.get_keys("PAIRWISE_KEY")
