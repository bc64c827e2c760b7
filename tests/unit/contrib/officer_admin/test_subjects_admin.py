"""The admin of subjects: permissions, actors in events, and no `sub` or digest on any page."""

import re
import sys
from collections.abc import Callable
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.signals import got_request_exception
from django.db import connection
from django.test import Client
from django.views.debug import ExceptionReporter

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.crypto import keyring
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from tests.support.officers import sign_in_officer
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import SUB, make_user, sign_in

LIST = "/admin/django_phi_oidc/pairwisesubject/"
ADD = f"{LIST}add/"
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def officer() -> Callable[..., Client]:
    """Return a function that signs in an administrator with these permissions on subjects."""
    headers = {"x-forwarded-for": "203.0.113.5"}
    return lambda *names, **options: sign_in_officer(
        *(f"{name}_pairwisesubject" for name in names), headers=headers, **options
    )


@pytest.fixture(autouse=True)
def _plain_http(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False


def person(sub: str = SUB) -> PairwiseSubject:
    return sign_in(keyring.get_keys("subject"), sub=sub).subject


def add(client: Client, user: object, sub: str = SUB, provider: str = "default") -> Any:
    return client.post(ADD, {"provider": provider, "user": user, "sub": sub}, follow=True)


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def test_add_links_the_person_and_records_the_administrator(officer: Callable[..., Client]) -> None:
    client, user = officer("add", "view"), make_user()
    page = add(client, user.pk)
    subject = PairwiseSubject.objects.get()
    assert (subject.user, page.redirect_chain[0][0]) == (user, LIST)
    assert str(subject.uuid) in messages_of(page)[0]
    (event,) = AuditEvent.objects.filter(action="subject.linked")
    assert (event.actor, event.subject, event.provider) == (str(client.user.pk), str(subject.uuid), "default")  # type: ignore[attr-defined]
    assert (event.detail, event.resource, event.client_ip) == ('{"created":false}', f"user/{user.pk}", "127.0.0.1")
    assert [entry.object_repr for entry in LogEntry.objects.all()] == [str(subject.uuid)]
    assert sign_in(keyring.get_keys("subject"), create_user=None).user == user


def test_form_never_renders_the_sub(officer: Callable[..., Client]) -> None:
    client = officer("add", "view")
    form = client.get(ADD).content.decode()
    (field,) = re.findall(r'<input[^>]*name="sub"[^>]*>', form)
    assert 'type="password"' in field
    assert 'autocomplete="off"' in field
    faulty = client.post(ADD, {"provider": "default", "user": "", "sub": SUB})
    assert "This field is required" in faulty.content.decode()
    assert SUB not in faulty.content.decode()


@pytest.mark.parametrize(
    ("sub", "message"),
    [("248é", "255 ASCII"), ("amina@example.org", "all clients"), (SUB, "linked to user {} already")],
)
def test_refused_link_shows_the_reason_and_keeps_other_input(
    sub: str, message: str, officer: Callable[..., Client]
) -> None:
    client, user, first = officer("add", "view"), make_user(), person()
    page = add(client, user.pk, sub)
    assert len(messages_of(page)) == 1
    assert message.format(first.user_id) in messages_of(page)[0]
    assert f'name="user" value="{user.pk}"' in page.content.decode()
    assert sub not in page.content.decode()
    assert sub not in page.redirect_chain[0][0]
    assert (PairwiseSubject.objects.count(), LogEntry.objects.count()) == (1, 0)


def test_link_without_a_subject_key_shows_and_logs_the_error(
    officer: Callable[..., Client], settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    person()
    client, user = officer("add", "view"), make_user()
    keys = settings.PHI_OIDC["KEYS"]["subject"]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": keys[:1]})
    assert "subject_key_missing" in messages_of(add(client, user.pk, "another"))[0]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": []})
    assert ": key_missing" in messages_of(add(client, user.pk, "another"))[0]
    assert ["is missing" in caplog.messages[0], "has no key" in caplog.messages[1]] == [True, True]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": keys})
    add(client, user.pk, "another")
    assert PairwiseSubject.objects.count() == 2


def test_link_at_an_undeclared_provider_is_refused(officer: Callable[..., Client]) -> None:
    page = add(officer("add", "view"), make_user().pk, provider="elsewhere")
    assert "elsewhere is not one of the available choices" in page.content.decode()
    assert not PairwiseSubject.objects.exists()


@pytest.mark.sqlite
@pytest.mark.parametrize("is_superuser", [False, True])
def test_only_superusers_link_superusers(is_superuser: bool, officer: Callable[..., Client]) -> None:
    """Otherwise administrators could link themselves to a superuser."""
    root = get_user_model().objects.create_superuser("root")
    user = get_user_model().objects.create_user("officer", is_staff=True, is_superuser=is_superuser)
    page = add(officer("add", "view", user=user), root.pk)
    assert page.status_code == (200 if is_superuser else 403)
    linked = [root] if is_superuser else []
    assert [subject.user for subject in PairwiseSubject.objects.all()] == linked
    assert AuditEvent.objects.filter(action="subject.linked").count() == LogEntry.objects.count() == len(linked)


def test_delete_unlinks_the_person_and_records_the_administrator(officer: Callable[..., Client]) -> None:
    client, subject = officer("delete", "view"), person()
    confirm = client.get(f"{LIST}{subject.pk}/delete/").content.decode()
    assert not any(digest[:8] in confirm for digest in SubjectDigest.objects.values_list("digest", flat=True))
    question = confirm.split("Are you sure", 1)[1].split("</p>")[0]
    assert f"{subject.user}, {subject.issuer}" in unescape(question)
    assert str(subject.uuid) not in question
    client.post(f"{LIST}{subject.pk}/delete/", {"post": "yes"})
    assert not PairwiseSubject.objects.exists()
    (event,) = AuditEvent.objects.filter(action="subject.unlinked")
    assert (event.actor, event.subject) == (str(client.user.pk), str(subject.uuid))  # type: ignore[attr-defined]
    assert get_user_model().objects.filter(pk=subject.user_id).exists()


@pytest.mark.parametrize("permitted", ["view", "add", "delete", "change", ""])
def test_each_action_requires_its_permission(permitted: str, officer: Callable[..., Client]) -> None:
    client, subject = officer(*filter(None, [permitted])), person()
    change = f"{LIST}{subject.pk}/change/"
    statuses = {
        "view": client.get(change).status_code,
        "add": client.get(ADD).status_code,
        "delete": client.get(f"{LIST}{subject.pk}/delete/").status_code,
        "change": client.post(change, {"user": client.user.pk}).status_code,  # type: ignore[attr-defined]
    }
    # Django's change permission includes view.
    opened = {"change": "view"}.get(permitted, permitted)
    assert statuses == {name: 200 if name == opened else 403 for name in statuses}
    assert PairwiseSubject.objects.get().user_id == subject.user_id


def test_pages_show_no_digest(officer: Callable[..., Client]) -> None:
    client, subject = officer("view", "delete"), person()
    for url in (LIST, f"{LIST}{subject.pk}/change/"):
        page = client.get(url).content.decode()
        assert (str(subject.uuid) in page) is (url != LIST), "ids are on the page of the row"
        assert str(subject.user) in page
        assert not any(digest[:8] in page for digest in SubjectDigest.objects.values_list("digest", flat=True))
    assert "delete_selected" not in client.get(LIST).content.decode()


def test_search_matches_complete_uuids_and_user_names(officer: Callable[..., Client]) -> None:
    client, one, other = officer("view"), person("one"), person("other")

    def search(term: str) -> set[Any]:
        return {subject.pk for subject in client.get(LIST, {"q": term}).context["cl"].result_list}

    assert search(str(one.uuid)) == search(f" {one.uuid.hex} ") == search(one.user.get_username()) == {one.pk}
    assert search("") == {one.pk, other.pk}
    get_user_model().objects.filter(pk=other.user_id).update(username=str(UUID(int=7)))
    assert search(str(UUID(int=7))) == {other.pk}
    assert search(one.user.get_username()[:-1]) == {one.pk}
    assert search(one.user.get_username()[1:]) == search(str(one.uuid)[:-1]) == set()


def test_error_report_hides_the_sub(officer: Callable[..., Client]) -> None:
    """An error report, as Django sends it to administrators, contains no `sub`."""
    client, user = officer("add", "view"), make_user()
    client.raise_request_exception = False
    reports: list[str] = []

    def report(request: Any, **kwargs: Any) -> None:
        reporter = ExceptionReporter(request, *sys.exc_info())
        reports.append(reporter.get_traceback_text() + reporter.get_traceback_html())

    got_request_exception.connect(report)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_phi_oidc_subjectdigest RENAME TO away")
    try:
        assert client.post(ADD, {"provider": "default", "user": user.pk, "sub": SUB}).status_code == 500
    finally:
        got_request_exception.disconnect(report)
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO django_phi_oidc_subjectdigest")
    assert "subjectdigest" in reports[0]
    assert f"user = '{user.pk}'" in reports[0]
    assert SUB not in reports[0]


def test_deleting_a_linked_user_requires_the_permission_to_unlink(officer: Callable[..., Client]) -> None:
    subject = person()
    allowed = Permission.objects.get(codename="delete_user")
    for actions, is_unlinked in (((), False), (("delete",), True)):
        client = officer(*actions)
        client.user.user_permissions.add(allowed)  # type: ignore[attr-defined]
        client.post(f"/admin/auth/user/{subject.user_id}/delete/", {"post": "yes"})
        assert PairwiseSubject.objects.exists() is not is_unlinked
    assert AuditEvent.objects.filter(action="subject.unlinked").count() == 1
