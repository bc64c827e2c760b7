"""A person gets a mail when an identity is linked to the account or unlinked from it, from a real mail server."""

import socket
import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail as django_mail
from django.db import connection, connections, transaction
from django.template import TemplateSyntaxError
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.contrib.individual_rights.erasure import erase_person
from django_phi_oidc.contrib.notices.models import AccountNotice
from django_phi_oidc.contrib.notices.notices import (
    GIVE_UP_AFTER,
    RETRY_DELAY,
    delete_finished_notices,
    find_notice_address,
    send_due_notices,
    write_notices,
)
from django_phi_oidc.contrib.notices.tasks import send_notices
from django_phi_oidc.errors import SubjectTaken
from django_phi_oidc.subjects.account_changes import AccountChange
from django_phi_oidc.subjects.linking import link_existing_user
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.mail_server import mail_server  # noqa: F401 -- a fixture
from tests.support.mail_settings import REFUSING_BACKEND, mail_by
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import ISSUER, KEY_1, NOW, SUB, sign_in

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ADDRESS = "ada@example.org"
MailServer = SimpleNamespace


def address_of(user: Any) -> Any:
    """The project's function."""
    return {"other": "other@example.org", "none": None}.get(user.username, "")


def fail_to_find(user: Any) -> str:
    raise RuntimeError(ADDRESS)


def query_wrongly(user: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1/0")
    return ADDRESS


@pytest.fixture(autouse=True)
def _at_noon() -> Any:
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def user() -> Any:
    return get_user_model()._default_manager.create_user(username="ada", email=ADDRESS, first_name="Ada")


def link(user: Any, *, sub: str = SUB, now: Any = NOW) -> PairwiseSubject:
    raw = {"issuer": ISSUER, "client_id": "portal", "client_secret": "s"}
    provider = parse_provider("default", raw)
    return link_existing_user(user, sub=sub, provider=provider, keys=[KEY_1], origin=Origin(actor="7"), now=now)


def kinds() -> list[str]:
    return list(AccountNotice.objects.order_by("id").values_list("kind", flat=True))


@pytest.mark.parametrize(
    ("email", "expected"),
    [
        (ADDRESS, ADDRESS),
        (" ada@example.org ", ADDRESS),
        ("", ""),
        ("ada", ""),
        ("ada@example.org\nBcc: eve@example.org", ""),
        ("phi_abc@account.invalid", ""),
        ("phi_abc@ACCOUNT.INVALID", ""),
    ],
)
def test_g12_mail_is_only_sent_to_an_address_that_can_be_delivered_to(email: str, expected: str, user: Any) -> None:
    user.email = email
    assert find_notice_address(user) == expected


def test_g12_project_names_the_address_or_disables_notices(user: Any, settings: Any) -> None:
    for declared, name, expected in (
        (True, "ada", ADDRESS),
        (False, "ada", ""),
        (f"{__name__}.address_of", "other", "other@example.org"),
        (f"{__name__}.address_of", "none", ""),
        (f"{__name__}.address_of", "ada", ""),
    ):
        settings.PHI_OIDC = {**settings.PHI_OIDC, "ACCOUNT_NOTICES": declared}
        user.username = name
        assert find_notice_address(user) == expected


def test_g12_failing_function_of_the_project_does_not_prevent_the_link(
    user: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "ACCOUNT_NOTICES": f"{__name__}.fail_to_find"}
    assert link(user).pk
    assert (kinds(), "the function failed: RuntimeError" in caplog.text, ADDRESS in caplog.text) == ([], True, False)


@pytest.mark.postgresql
def test_g12_failing_query_of_the_project_prevents_neither_link_nor_unlinking(
    user: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "ACCOUNT_NOTICES": f"{__name__}.query_wrongly"}
    subject = link(user)
    assert PairwiseSubject.objects.filter(pk=subject.pk).exists()
    subject.delete()
    assert not PairwiseSubject.objects.exists()
    assert caplog.text.count("the function failed: DataError") == 2


def test_g12_only_a_function_of_the_project_costs_a_savepoint(user: Any, settings: Any) -> None:
    for declared, expected in ((True, 0), (f"{__name__}.address_of", 1)):
        settings.PHI_OIDC = {**settings.PHI_OIDC, "ACCOUNT_NOTICES": declared}
        with transaction.atomic(), CaptureQueriesContext(connection) as inside:
            find_notice_address(user)
        with CaptureQueriesContext(connection) as outside:
            find_notice_address(user)
        made = [query["sql"] for query in inside if query["sql"].startswith("SAVEPOINT")]
        assert (len(made), len(outside)) == (expected, 0)


def test_g12_person_gets_a_mail_when_an_identity_is_linked_and_unlinked(
    user: Any, mail_server: MailServer, settings: Any
) -> None:
    declared = {**settings.PHI_OIDC["PROVIDERS"]["default"], "label": "Clinic <1>"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declared}}
    subject = link(user)
    assert mail_server.mails == [], "no request sends a mail"
    send_notices()
    subject.delete()
    send_notices()
    send_notices()
    linked, unlinked = mail_server.mails
    assert "Subject: A sign-in was added to your account" in linked
    assert "Subject: A sign-in was removed from your account" in unlinked
    for mail in mail_server.mails:
        assert f"To: {ADDRESS}" in mail
        assert "Identity provider: Clinic <1>" in mail
        assert "Time: 2026-11-24 12:00 (UTC)" in mail
        assert "contact us at once" in mail
        assert not [text for text in (SUB, "Ada", str(subject.uuid), "192.0.2.1") if text in mail]


def test_g12_account_that_the_sign_in_creates_gets_no_mail(user: Any) -> None:
    linked = sign_in(create_user=lambda: user)
    assert (linked.created, kinds()) == (True, [])


def test_g12_deleted_account_gets_no_mail(user: Any) -> None:
    link(user)
    assert kinds() == ["linked"]
    user.delete()
    assert kinds() == []


def test_g12_refused_link_leaves_no_notice(user: Any) -> None:
    subject = link(user)
    with pytest.raises(SubjectTaken):
        link(get_user_model()._default_manager.create_user(username="eve", email="eve@example.org"))
    assert list(AccountNotice.objects.values_list("user", flat=True)) == [subject.user_id]


def test_g12_replaced_link_is_also_notified_to_the_old_address(user: Any, mail_server: MailServer) -> None:
    link(user).delete()
    AccountNotice.objects.filter(kind="linked").delete()
    user.email = "eve@example.org"
    user.save()
    link(user, sub="another", now=NOW + timedelta(minutes=1))
    assert send_due_notices(now=NOW + timedelta(minutes=1)) == 4
    added = [mail for mail in mail_server.mails if "was added" in mail]
    assert sorted(line for mail in added for line in mail.splitlines() if line.startswith("To:")) == [
        f"To: {ADDRESS}",
        "To: eve@example.org",
    ]


def test_g12_identity_is_linked_and_unlinked_without_the_encryption_keys(
    user: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    link(user).delete()
    assert (kinds(), PairwiseSubject.objects.exists()) == ([], False)
    assert caplog.text.count("A notice was not written") == 2
    assert ADDRESS not in caplog.text


def test_g12_address_is_encrypted(user: Any) -> None:
    link(user)
    with connection.cursor() as cursor:
        cursor.execute("SELECT address FROM phi_oidc_notices_accountnotice")
        ((text,),) = cursor.fetchall()
    assert "ada" not in text


def test_g12_refused_mail_is_retried_later_and_abandoned_after_three_days(
    user: Any, mail_server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    link(user)
    mail_server.refuses, due = True, NOW
    for number in range(3):
        assert send_due_notices(now=due) == 0
        due += RETRY_DELAY * 2**number
        assert send_due_notices(now=due - timedelta(seconds=1)) == 0
        assert AccountNotice.objects.get().due_at == due
    assert ADDRESS not in caplog.text
    mail_server.refuses = False
    assert send_due_notices(now=due) == 1
    assert (AccountNotice.objects.get().sent_at, len(mail_server.mails)) == (due, 1)
    mail_server.refuses = True
    link(user, sub="another")
    late = NOW + GIVE_UP_AFTER
    assert send_due_notices(now=late) == 0
    assert "is abandoned" in caplog.text
    assert not AccountNotice.objects.exclude(due_at=None).exists()


def test_g12_address_that_is_refused_does_not_hold_up_other_mails(user: Any, mail_server: MailServer) -> None:
    link(user)
    other = get_user_model()._default_manager.create_user(username="bea", email="bea@example.org")
    link(other, sub="another", now=NOW + timedelta(seconds=1))
    mail_server.refused = ADDRESS
    assert send_due_notices(now=NOW + timedelta(seconds=1)) == 1
    assert "bea@example.org" in mail_server.mails[0]


def test_g12_exception_of_another_mail_backend_does_not_hold_up_other_mails(
    user: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mail_by(settings, REFUSING_BACKEND)
    link(user)
    other = get_user_model()._default_manager.create_user(username="bea", email="bea@example.org")
    link(other, sub="another", now=NOW + timedelta(seconds=1))
    assert send_due_notices(now=NOW + timedelta(seconds=1)) == 1
    assert [message.to for message in django_mail.outbox] == [["bea@example.org"]]
    assert send_due_notices(now=NOW + GIVE_UP_AFTER) == 0
    assert ("was not sent: MailAPIError" in caplog.text, ADDRESS in caplog.text) == (True, False)
    assert delete_finished_notices(before=NOW + GIVE_UP_AFTER) == 2, "the refused one is abandoned"


def test_g12_error_of_an_overridden_template_is_reported_for_each_notice(
    user: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        link(user, sub=f"sub-{number}")
    loader = ("django.template.loaders.locmem.Loader", {"django_phi_oidc/account_notice.txt": "{% nothing %}"})
    options = {**settings.TEMPLATES[0]["OPTIONS"], "loaders": [loader]}
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": options}]
    assert send_due_notices(now=NOW + GIVE_UP_AFTER) == 0
    assert caplog.text.count(f"was not sent: {TemplateSyntaxError.__name__}") == 2
    assert not AccountNotice.objects.exclude(due_at=None).exists()


def test_g12_unavailable_mail_server_ends_the_run_and_delays_the_mails(
    user: Any, mail_server: MailServer, settings: Any, unused_tcp_port: int
) -> None:
    for number in range(3):
        link(user, sub=f"sub-{number}")
    mail_by(settings, "smtp", host="127.0.0.1", port=unused_tcp_port, timeout=1)
    assert send_due_notices(now=NOW) == 0
    assert sorted(AccountNotice.objects.values_list("attempts", flat=True)) == [0, 0, 1], "one attempt shows it"
    mail_by(settings, "smtp", host="127.0.0.1", port=mail_server.port, timeout=10)
    assert send_due_notices(now=NOW + RETRY_DELAY) == 3


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_g12_two_workers_send_a_mail_once(user: Any, mail_server: MailServer) -> None:
    for number in range(5):
        link(user, sub=f"sub-{number}")
    sent: list[int] = []

    def work() -> None:
        sent.append(send_due_notices(now=NOW))
        connections.close_all()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (sum(sent), len(mail_server.mails)) == (5, 5)


def test_g12_finished_notices_are_deleted(user: Any, mail_server: MailServer) -> None:
    link(user)
    later = NOW + timedelta(days=1)
    assert delete_finished_notices(before=later) == 0, "it was not sent"
    send_due_notices(now=NOW)
    assert (delete_finished_notices(before=NOW), delete_finished_notices(before=later)) == (0, 1)


def test_g12_erasure_deletes_former_notices_and_notifies_of_the_unlinking(user: Any) -> None:
    subject = link(user)
    write_notices([user], AccountChange.NEW_DEVICE, provider="default", now=NOW)
    erase_person(user, [subject], origin=Origin(), now=NOW)
    assert kinds() == ["unlinked"]
