"""People in change lists: names by one query a page, links for users who may follow them, and one search box."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.common import people_admin
from django_phi_oidc.contrib.common.people_admin import (
    can_view_person_pages,
    list_matching_accounts,
)
from django_phi_oidc.contrib.common.person_pages import person_sections
from django_phi_oidc.contrib.individual_rights.models import AccountingCopy
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.monitoring.models import AlertMute, SecurityAlert
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.admin_rows import get_list_url
from tests.support.manual_blocks import block
from tests.support.officers import sign_in_officer
from tests.support.subject_linking import NOW

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
SESSIONS, SUBJECTS = "/admin/django_phi_oidc/oidcsession/", "/admin/django_phi_oidc/pairwisesubject/"
LATER = NOW + timedelta(days=30)


@pytest.fixture(autouse=True)
def _at_noon(settings: Any) -> Any:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    with clock.override_clock(lambda: NOW):
        yield


def make_person(first_name: str = "Amina", last_name: str = "Okafor", username: str = "") -> Any:
    names = {"first_name": first_name, "last_name": last_name}
    return get_user_model()._default_manager.create_user(username=username or uuid.uuid4().hex, **names)


def make_subject(user: Any) -> PairwiseSubject:
    return PairwiseSubject.objects.create(
        uuid=uuid.uuid4(), user=user, issuer="https://op.example.test", first_seen_at=NOW, last_seen_at=NOW
    )


def make_session(user: Any, **fields: Any) -> OIDCSession:
    times = {"started_at": NOW, "last_seen_at": NOW}
    return OIDCSession.objects.create(id=uuid7(NOW), user=user, provider="default", **times, **fields)


def make_revocation(user: Any, **fields: Any) -> PendingRevocation:
    times = {"due_at": NOW, "created_at": NOW}
    session = make_session(user).pk
    return PendingRevocation.objects.create(id=uuid7(NOW), provider="default", session=session, **times, **fields)


def make_claim(user: Any) -> StoredClaim:
    times = {"obtained_at": NOW, "expires_at": LATER}
    return StoredClaim.objects.create(subject=make_subject(user), name="address", value='""', purpose="TREAT", **times)


def make_hold(user: Any) -> LegalHold:
    fields = {"reason": "Docket 26-117", "placed_at": NOW, "placed_by": str(user.pk)}
    return LegalHold.objects.create(id=uuid7(NOW), subject=make_subject(user), **fields)


def make_code(user: Any) -> ActivationCode:
    fields = {"key_id": "k", "digest": uuid.uuid4().hex, "binding": "b", "created_by": str(user.pk)}
    return ActivationCode.objects.create(user=user, provider="default", created_at=NOW, expires_at=LATER, **fields)


def make_alert(user: Any) -> SecurityAlert:
    fields = {"severity": "warning", "first_seen": NOW, "last_seen": NOW}
    return SecurityAlert.objects.create(kind="many_records", key=str(user.pk), **fields)


def make_mute(user: Any) -> AlertMute:
    fields = {"until": LATER, "note": "A drill.", "muted_at": NOW, "muted_by": str(user.pk)}
    return AlertMute.objects.create(kind="refusals_by_person", key=f"user/{user.pk}", **fields)


def make_copy(user: Any) -> AccountingCopy:
    fields = {"sha256": "0" * 64, "count": 1, "lines": "{}", "first_given_at": NOW, "last_given_at": NOW}
    return AccountingCopy.objects.create(id=uuid7(NOW), account=str(user.pk), **fields)


ROWS: dict[str, Callable[[Any], Any]] = {
    "oidcsession": make_session,
    "pendingrevocation": make_revocation,
    "pairwisesubject": make_subject,
    "storedclaim": make_claim,
    "legalhold": make_hold,
    "activationcode": make_code,
    "securityalert": make_alert,
    "alertmute": make_mute,
    "accountingcopy": make_copy,
}


def list_found(client: Client, url: str, term: str) -> set[Any]:
    return {row.pk for row in client.get(url, {"q": term}).context["cl"].result_list}


@pytest.mark.parametrize("model", ROWS)
def test_list_names_the_person_and_is_searched_by_the_name(model: str) -> None:
    user, other = make_person(), make_person("Li", "Wei")
    row, other_row = ROWS[model](user), ROWS[model](other)
    client, url = sign_in_officer(is_superuser=True), get_list_url(model)
    page = client.get(url).content.decode()
    assert f'<a href="/admin/django_phi_oidc/person/{user.pk}/">Amina Okafor</a>' in page
    assert user.get_username() not in page
    assert list_found(client, url, "") == {row.pk, other_row.pk}
    name = user.get_username()
    for term in ("Amina", "okaf", "Amina Okafor", "okafor am", name, name[:9], str(user.pk)):
        assert list_found(client, url, term) == {row.pk}, term
    for term in ("mina", "Amina Wei", name[1:], str(uuid.UUID(int=3))):
        assert list_found(client, url, term) == set(), term


@pytest.mark.parametrize("model", ROWS)
def test_number_of_queries_does_not_depend_on_rows_and_one_is_for_people(model: str) -> None:
    client, url, counts = sign_in_officer(is_superuser=True), get_list_url(model), []
    for rows in (1, 49):
        for _ in range(rows):
            ROWS[model](make_person())
        with CaptureQueriesContext(connection) as queries:
            page = client.get(url).content.decode()
        assert page.count("Amina Okafor") >= rows
        counts.append(len(queries))
        people = [query["sql"] for query in queries if "first_name" in query["sql"] and "LIMIT" not in query["sql"]]
        assert len(people) == 1, people
    assert counts[0] == counts[1]


@pytest.mark.parametrize("model", [name for name in ROWS if name != "accountingcopy"])
def test_page_of_a_row_has_the_person_in_its_heading_or_fields_and_no_id_in_the_heading(model: str) -> None:
    row = ROWS[model](make_person())
    client = sign_in_officer(is_superuser=True)
    page = client.get(f"{get_list_url(model)}{row.pk}/change/").content.decode()
    assert "Amina Okafor" in page
    headings = page.partition('<div class="breadcrumbs">')[2].partition("</div>")[0]
    headings += page.partition("<h2>")[2].partition("</h2>")[0]
    assert headings
    assert str(row.pk) not in headings or isinstance(row.pk, int)
    assert getattr(row, "kind", "-kind-") not in headings


def test_person_without_an_account_is_shown_as_recorded() -> None:
    make_session(None)
    make_code(make_person())
    ActivationCode.objects.update(created_by="os:root@portal-1")
    client = sign_in_officer("view_oidcsession", "view_activationcode")
    assert "Deleted account" in client.get(SESSIONS).content.decode()
    assert "os:root@portal-1" in client.get("/admin/phi_oidc_invitations/activationcode/").content.decode()


@pytest.mark.parametrize(("permission", "is_linked"), [("view_auditevent", True), ("view_alertmute", False)])
def test_name_is_a_link_only_for_users_who_may_view_the_page(permission: str, is_linked: bool) -> None:
    user = make_person()
    make_alert(user)
    client = sign_in_officer("view_securityalert", permission)
    page = client.get("/admin/phi_oidc_monitoring/securityalert/").content.decode()
    assert "Amina Okafor" in page
    assert (f"/person/{user.pk}/" in page) is is_linked
    assert client.get(f"/admin/django_phi_oidc/person/{user.pk}/").status_code == (200 if is_linked else 403)


def test_permissions_for_links_are_those_of_the_sections_of_the_page() -> None:
    permissions = {section.permission for section in person_sections}
    assert len(permissions) == 8
    for permission in permissions:
        client: Any = sign_in_officer(permission.partition(".")[2])
        assert can_view_person_pages(client.user), permission
    assert not can_view_person_pages(sign_in_officer("view_alertmute").user)  # type: ignore[attr-defined]


def test_popup_selects_a_row_by_the_name() -> None:
    user = make_person()
    subject = make_subject(user)
    page = sign_in_officer("view_pairwisesubject").get(SUBJECTS, {"_popup": "1"}).content.decode()
    assert f'data-popup-opener="{subject.pk}">Amina Okafor</a>' in page
    assert f"/person/{user.pk}/" not in page


def test_search_by_session_subject_and_revocation_id() -> None:
    user = make_person()
    subject, revocation = make_subject(user), make_revocation(user)
    session = OIDCSession.objects.get()
    make_revocation(make_person())
    client = sign_in_officer("view_oidcsession", "view_pendingrevocation")
    for term in (session.pk, session.pk.hex, subject.uuid):
        assert list_found(client, SESSIONS, str(term)) == {session.pk}
    for term in (revocation.pk, session.pk, subject.uuid):
        assert list_found(client, "/admin/django_phi_oidc/pendingrevocation/", str(term)) == {revocation.pk}


def test_search_that_matches_too_many_people_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_admin, "MAX_ACCOUNTS", 2)
    for _ in range(2):
        make_session(make_person())
    client = sign_in_officer("view_oidcsession")
    message = "More than 2 people match. Enter more of the name."
    assert message not in client.get(SESSIONS, {"q": "Amina"}).content.decode()
    make_session(make_person())
    assert message in client.get(SESSIONS, {"q": "Amina"}).content.decode()
    assert len(list_found(client, SESSIONS, "Amina")) == 2


def test_search_compares_the_user_name_so_that_its_index_is_used() -> None:
    make_person(username="amina-1")
    with CaptureQueriesContext(connection) as queries:
        assert len(list_matching_accounts("amina-")) == 1
    # One for a complete user name, one for the beginning of any name.
    assert len(queries) == 2
    assert all("%amina" not in query["sql"] for query in queries)
    assert all("LIMIT" in query["sql"] for query in queries if "LIKE" in query["sql"])


def test_default_of_revocations_is_pending_and_all_is_a_choice() -> None:
    user = make_person()
    pending = make_revocation(user)
    done = make_revocation(user, status="done", finished_at=NOW)
    client, url = sign_in_officer("view_pendingrevocation"), "/admin/django_phi_oidc/pendingrevocation/"
    found = {
        value: {row.pk for row in client.get(url, {"status__exact": value} if value else {}).context["cl"].result_list}
        for value in ("", "pending", "finished", "done", "refused", "all")
    }
    assert found == {
        "": {pending.pk},
        "pending": {pending.pk},
        "finished": {done.pk},
        "done": {done.pk},
        "refused": set(),
        "all": {pending.pk, done.pk},
    }
    changelist = client.get(url).context["cl"]
    choices = list(changelist.filter_specs[0].choices(changelist))
    assert [choice["display"] for choice in choices if choice["selected"]] == ["Pending"]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_documented_indexes_serve_a_search_for_a_name() -> None:
    with connection.cursor() as cursor:
        try:
            for statement in block("admin-groups", "name-indexes").splitlines():
                cursor.execute(statement)
            with CaptureQueriesContext(connection) as queries:
                list_matching_accounts("Amina")
            with transaction.atomic():
                # A table of so few rows would be read as a whole.
                cursor.execute("SET LOCAL enable_seqscan = off")
                cursor.execute(f"EXPLAIN {queries[-1]['sql']}")
                plan = "\n".join(line for (line,) in cursor.fetchall())
        finally:
            cursor.execute("DROP INDEX IF EXISTS first_name_begins, last_name_begins")
    assert "first_name_begins" in plan
    assert "last_name_begins" in plan
