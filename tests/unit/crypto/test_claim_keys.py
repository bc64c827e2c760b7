"""The keys that an app supplies for claims: without the app, KEYS['encryption'] encrypts them."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, Tags, run_checks

from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.retention import destroy_unused_keys, scrub_user
from django_phi_oidc.crypto import claim_keys, keyring
from django_phi_oidc.errors import CiphertextInvalid, KeyMissing
from django_phi_oidc.extensions import claim_key_sources
from django_phi_oidc.fields import EncryptedText
from tests.support.claims_fixtures import NOW, Person
from tests.support.retention_key_folder import use_retention_keys

NAMES = "20261124-86400"
CONTEXT = ("a place",)


@pytest.fixture
def without_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_key_sources, "_items", [])


def test_key_of_a_day_is_named_only_if_the_app_is_enabled(settings: Any, tmp_path: Path) -> None:
    assert claim_keys.find_enabled_source() is None
    assert claim_keys.find_day_key_name(NOW, timedelta(days=1)) == ""
    use_retention_keys(settings, tmp_path)
    assert claim_keys.find_enabled_source() is not None
    assert claim_keys.find_day_key_name(NOW, timedelta(days=1)) == NAMES


@pytest.mark.usefixtures("without_app")
def test_text_under_keys_of_claims_is_not_undecryptable_without_the_app() -> None:
    """KeyMissing: the key may come back, so no caller discards the text."""
    with pytest.raises(KeyMissing, match="no app supplies the keys"):
        keyring.decrypt(f"{NAMES}:gAAAA", context=CONTEXT)
    with pytest.raises(KeyMissing):
        keyring.encrypt("Bern", context=CONTEXT, retention_key_names=NAMES)
    with pytest.raises(CiphertextInvalid):
        keyring.decrypt("20261399-86400:gAAAA", context=CONTEXT)
    assert EncryptedText(f"{NAMES}:gAAAA").key_id == NAMES


@pytest.mark.usefixtures("without_app")
def test_names_of_a_claim_need_the_app_unless_the_claim_has_no_key_of_its_own() -> None:
    assert claim_keys.join_names("", uuid.uuid4()) == ""
    with pytest.raises(KeyMissing):
        claim_keys.join_names(NAMES, uuid.uuid4())


def find_w048() -> list[CheckMessage]:
    messages = run_checks(tags=[Tags.database], databases=["default"])
    return [message for message in messages if str(message.id).endswith("W048")]


@pytest.mark.django_db(databases=["default", "phi_audit"])
def test_check_reports_claims_whose_keys_no_app_supplies(settings: Any, tmp_path: Path) -> None:
    use_retention_keys(settings, tmp_path)
    person = Person()
    person.store({"address": "Bern"})
    assert find_w048() == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim_key_sources, "_items", [])
        (message,) = find_w048()
        assert "no app supplies the keys" in message.msg
        StoredClaim.objects.all().delete()
        assert find_w048() == []


@pytest.mark.django_db(databases=["default", "phi_audit"])
@pytest.mark.usefixtures("without_app")
def test_claims_are_stored_and_erased_without_the_app(settings: Any, tmp_path: Path) -> None:
    use_retention_keys(settings, tmp_path)
    person = Person()
    person.store({"address": "Bern"})
    assert StoredClaim.objects.get().bucket == ""
    key_id = person.subject.retention_key_id
    assert scrub_user(person.user, origin=person.origin(), now=NOW) == 1
    person.subject.refresh_from_db()
    assert person.subject.retention_key_id == key_id
    assert destroy_unused_keys(now=NOW + timedelta(days=9)) == []
