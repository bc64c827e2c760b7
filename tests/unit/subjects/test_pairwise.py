"""Pairwise identifiers: stable, and different for each sector."""

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
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import at_once, capturing, make_user, statements

BILLING, LAB = "billing.example.org", "lab.example.org"
OLD, NEW = key("test pairwise key 1"), key("test pairwise key 2")


@pytest.fixture(autouse=True)
def _keys(settings: Any) -> None:
    use_keys(settings, [OLD])


def use_keys(settings: Any, keys: list[str] | None) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"pairwise": keys})


@pytest.mark.django_db
def test_pairwise_id_is_unique_per_user_and_sector_and_stable() -> None:
    users = [make_user() for _ in range(3)]
    values = {(user.pk, sector): pairwise.get_pairwise_id(user, sector) for user in users for sector in (BILLING, LAB)}
    assert len(set(values.values())) == 6
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in values.values())
    again = {(user.pk, sector): pairwise.get_pairwise_id(user, sector) for user in users for sector in (LAB, BILLING)}
    assert again == values


@pytest.mark.django_db
def test_stored_pairwise_id_takes_one_select_and_no_key(settings: Any) -> None:
    user = make_user()
    value = pairwise.get_pairwise_id(user, BILLING)
    for keys in ([NEW, OLD], [NEW], None):
        use_keys(settings, keys)
        with capturing() as context:
            assert pairwise.get_pairwise_id(user, BILLING) == value
        assert [sql[:6] for sql in statements(context)] == ["SELECT"]


@pytest.mark.django_db
def test_new_pairwise_id_uses_the_newest_key(settings: Any) -> None:
    user = make_user()
    under_old = pairwise.get_pairwise_id(user, BILLING)
    PairwiseIdentifier.objects.all().delete()
    use_keys(settings, [OLD, NEW])
    assert pairwise.get_pairwise_id(user, BILLING) == under_old
    PairwiseIdentifier.objects.all().delete()
    use_keys(settings, [NEW, OLD])
    assert pairwise.get_pairwise_id(user, BILLING) != under_old


@pytest.mark.django_db
def test_new_pairwise_id_without_a_key_is_an_error(settings: Any) -> None:
    user = make_user()
    use_keys(settings, None)
    with pytest.raises(KeyMissing, match="pairwise"):
        pairwise.get_pairwise_id(user, BILLING)
    assert not PairwiseIdentifier.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "sector",
    ["", " ", "Billing.example.org", "billing.example.org/", "https://billing.example.org", "billing\n", "-b", "b.",
     "bülling.example", "a" * 256],
)  # fmt: skip
def test_invalid_sector_is_an_error(sector: str) -> None:
    user = make_user()
    with pytest.raises(ValueError, match="host name"):
        pairwise.get_pairwise_id(user, sector)
    assert pairwise.get_pairwise_id(user, "a" * 255) != pairwise.get_pairwise_id(user, "b")


@pytest.mark.django_db
def test_unsaved_user_is_an_error() -> None:
    for user in (AnonymousUser(), get_user_model()(username="not saved")):
        with pytest.raises(ValueError, match="not saved"):
            pairwise.get_pairwise_id(user, BILLING)  # type: ignore[arg-type]


@pytest.mark.django_db
def test_lazy_user_has_the_users_pairwise_id() -> None:
    user = make_user()
    lazy: Any = SimpleLazyObject(lambda: user)
    assert pairwise.get_pairwise_id(lazy, BILLING) == pairwise.get_pairwise_id(user, BILLING)


@pytest.mark.django_db
def test_pairwise_id_is_deleted_with_its_user() -> None:
    user, other = make_user(), make_user()
    pairwise.get_pairwise_id(user, BILLING)
    value = pairwise.get_pairwise_id(other, BILLING)
    user.delete()
    assert [identifier.value for identifier in PairwiseIdentifier.objects.all()] == [value]


@pytest.mark.django_db
@pytest.mark.parametrize("taken", ["user and sector", "sector and value"])
def test_pairwise_identifiers_are_unique_in_the_database(taken: str) -> None:
    user, other = make_user(), make_user()
    value = pairwise.get_pairwise_id(user, BILLING)
    duplicate = (user, "0" * 64) if taken == "user and sector" else (other, value)
    with pytest.raises(IntegrityError):
        PairwiseIdentifier.objects.create(user=duplicate[0], sector=BILLING, value=duplicate[1])


@pytest.mark.django_db(transaction=True)
def test_concurrent_first_uses_get_one_pairwise_id() -> None:
    user = make_user()
    values = at_once(*(lambda: pairwise.get_pairwise_id(user, BILLING) for _ in range(6)))
    assert set(values) == {PairwiseIdentifier.objects.get().value}


@pytest.mark.django_db(transaction=True)
def test_pairwise_id_stored_concurrently_under_another_key_is_used(settings: Any) -> None:
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
    assert keyring.get_keys("pairwise")
