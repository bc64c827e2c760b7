"""Mails about changes of an account and about suspicious attempts: once a day of each kind, to the right address."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection, transaction

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.notices.models import AccountNotice
from django_phi_oidc.contrib.notices.notices import send_due_notices, warn_user, write_notices
from django_phi_oidc.subjects.account_changes import AccountChange
from tests.support.mail_server import mail_server  # noqa: F401 -- a fixture
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import NOW

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ADDRESS = "ada@example.org"


@pytest.fixture(autouse=True)
def _at_noon() -> Any:
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def user(settings: Any) -> Any:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "BREAK_GLASS_ACCOUNTS": ["night-desk"]}
    users: Any = get_user_model()._default_manager
    return users.create_user(username="night-desk", email=ADDRESS, password="a former password", first_name="Ada")


def written() -> list[tuple[str, str]]:
    """Return kind and address of each notice, oldest first, and delete them."""
    field: Any = AccountNotice._meta.get_field("address")
    rows = [(row.kind, str(field.decrypt(row))) for row in AccountNotice.objects.order_by("pk")]
    AccountNotice.objects.all().delete()
    return rows


@pytest.mark.parametrize("fields", [None, ["email"]])
def test_asvs_6_3_7_changed_address_is_notified_to_the_former_one(fields: list[str] | None, user: Any) -> None:
    user.save(update_fields=fields)
    assert written() == [], "nothing has changed"
    user.email = "eve@example.org"
    user.save(update_fields=fields)
    assert written() == [("email_changed", ADDRESS)]
    user.email = ""
    user.save(update_fields=fields)
    assert written() == [("email_changed", "eve@example.org")]
    user.email = ADDRESS
    user.save(update_fields=fields)
    assert written() == [], "there was no address"


def verified_address(user: Any) -> str:
    return str(user.email) if user.last_name == "verified" else ""


def address_elsewhere(user: Any) -> str:
    return f"{user.username}@notices.example.org"


def test_asvs_6_3_7_function_of_the_project_decides_about_the_former_address(user: Any, settings: Any) -> None:
    for function, last_name, expected in (
        (verified_address, "", []),
        (verified_address, "verified", [("email_changed", ADDRESS)]),
        (address_elsewhere, "", [("email_changed", "night-desk@notices.example.org")]),
    ):
        settings.PHI_OIDC = {**settings.PHI_OIDC, "ACCOUNT_NOTICES": f"{__name__}.{function.__name__}"}
        user.last_name, user.email = last_name, "eve@example.org"
        user.save()
        assert (written(), user.email) == (expected, "eve@example.org")
        settings.PHI_OIDC = {**settings.PHI_OIDC, "ACCOUNT_NOTICES": False}
        user.email = ADDRESS
        user.save()


def test_asvs_6_3_7_change_that_is_rolled_back_leaves_no_notice(user: Any) -> None:
    user.email = "eve@example.org"
    with transaction.atomic():
        user.save()
        assert AccountNotice.objects.count() == 1
        transaction.set_rollback(True)
    assert written() == []


def test_asvs_6_3_7_new_password_is_notified(user: Any) -> None:
    assert written() == [], "a new account"
    user.set_password("another password")
    user.save()
    assert written() == [("password_changed", ADDRESS)]
    user.check_password("another password")
    user.save(update_fields=["last_login"])
    assert written() == []


def test_asvs_6_3_7_local_account_that_is_deactivated_or_activated_is_notified(user: Any) -> None:
    for is_active, kind in ((False, "deactivated"), (True, "activated")):
        user.is_active = is_active
        user.save(update_fields=["is_active"])
        assert written() == [(kind, ADDRESS)]
        user.save()
        assert written() == []
    other: Any = get_user_model()._default_manager.create_user(username="amina", email="amina@example.org")
    other.is_active = False
    other.save()
    assert written() == [], "not a local account"


def test_asvs_6_3_7_nothing_is_written_if_notices_are_off(user: Any, settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "ACCOUNT_NOTICES": False}
    user.email, user.is_active = "eve@example.org", False
    user.set_password("another password")
    user.save()
    warn_user(user, AccountChange.PASSWORD_REFUSED, provider="", now=NOW)
    assert written() == []


def test_asvs_6_3_5_attempts_are_notified_once_a_day_of_each_kind(user: Any) -> None:
    other: Any = get_user_model()._default_manager.create_user(username="amina", email="amina@example.org")
    for now in (NOW, NOW, NOW + timedelta(hours=11), NOW + timedelta(hours=12)):
        for kind in (AccountChange.PASSWORD_REFUSED, AccountChange.SIGN_IN_REFUSED):
            warn_user(user, kind, provider="", now=now)
    warn_user(other, AccountChange.PASSWORD_REFUSED, provider="", now=NOW)
    assert sorted(written()) == [
        ("password_refused", ADDRESS),
        ("password_refused", ADDRESS),
        ("password_refused", "amina@example.org"),
        ("sign_in_refused", ADDRESS),
        ("sign_in_refused", ADDRESS),
    ]


def test_asvs_6_3_5_attempt_does_not_send_a_mail_again(user: Any, mail_server: SimpleNamespace) -> None:
    warn_user(user, AccountChange.PASSWORD_REFUSED, provider="", now=NOW)
    assert send_due_notices(now=NOW) == 1
    warn_user(user, AccountChange.PASSWORD_REFUSED, provider="", now=NOW)
    assert send_due_notices(now=NOW) == 0
    assert len(mail_server.mails) == 1


def test_asvs_6_3_5_refusal_does_not_fail_without_keys_or_database(
    user: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError(ADDRESS)

    with connection.execute_wrapper(fail):
        warn_user(user, AccountChange.PASSWORD_REFUSED, provider="", now=NOW)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    with transaction.atomic():
        warn_user(user, AccountChange.PASSWORD_REFUSED, provider="", now=NOW)
    assert (AccountNotice.objects.count(), ADDRESS in caplog.text) == (0, False)
    assert caplog.text.count("A notice was not written") == 2


@pytest.mark.parametrize("kind", AccountChange)
def test_each_mail_has_its_own_text_and_no_data(kind: AccountChange, user: Any, mail_server: SimpleNamespace) -> None:
    write_notices([user], kind, provider="", now=NOW)
    write_notices([user], AccountChange.NEW_DEVICE, provider="", now=NOW)
    assert send_due_notices(now=NOW) == 2
    texts = [mail.partition("\r\n\r\n")[2] for mail in mail_server.mails]
    subjects = [line for mail in mail_server.mails for line in mail.splitlines() if line.startswith("Subject:")]
    assert (len(set(texts)), len(set(subjects))) == ((1, 1) if kind == AccountChange.NEW_DEVICE else (2, 2))
    for text in texts:
        assert "Time: 2026-11-24 12:00 (UTC)" in text
        assert [data for data in ("Ada", "night-desk", ADDRESS) if data in text] == []
