"""Claims and legal holds in the admin: permissions to view, erase, hold and release; no page shows a value."""

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.claims.models import FOREVER, NO_SESSION, StoredClaim
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.officer_admin.claims_admin import describe_retention
from django_phi_oidc.fields import EncryptedText
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.claims_fixtures import DAY, NOW, Person, _declared  # noqa: F401 -- a fixture
from tests.support.officers import sign_in_officer
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.retention_key_folder import use_retention_keys

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
CLAIMS, HOLDS = "/admin/django_phi_oidc/storedclaim/", "/admin/phi_oidc_legal_holds/legalhold/"
SUBJECTS, USERS = "/admin/django_phi_oidc/pairwisesubject/", "/admin/auth/user/"
CANARY = "claim-canary-1990-05-17"
Events = Callable[[str], list[Any]]
Officer = Callable[..., Client]


@pytest.fixture(autouse=True)
def _at_noon(settings: Any) -> Any:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.TIME_ZONE = "UTC"
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def officer() -> Officer:
    """Return a function that signs in a staff member with these permissions."""
    return sign_in_officer


def list_messages(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def list_ids(client: Client, page: str = CLAIMS, **query: str) -> set[Any]:
    return {row.pk for row in client.get(page, query).context["cl"].result_list}


def hold(person: Person, *, until: Any = None) -> LegalHold:
    return place_hold(person.subject.uuid, reason="Docket 26-117", until=until, origin=Origin(), now=NOW)


def test_page_shows_the_session_only_for_claims_of_a_session(person: Person, officer: Officer) -> None:
    person.store({"birthdate": CANARY, "address": {"locality": "Bern"}})
    client = officer("view_storedclaim")
    shown = {
        claim.name: client.get(f"{CLAIMS}{claim.pk}/change/").content.decode() for claim in StoredClaim.objects.all()
    }
    assert [name for name, page in shown.items() if str(person.session_id) in page] == ["birthdate"]
    assert not [name for name, page in shown.items() if str(NO_SESSION) in page]


def test_pages_of_claims_neither_show_nor_read_values(person: Person, officer: Officer) -> None:
    person.store({"birthdate": CANARY, "address": {"locality": "Bern"}})
    claim = StoredClaim.objects.get(name="birthdate")
    assert isinstance(claim.value, EncryptedText)
    client = officer("view_storedclaim")
    for url in (CLAIMS, f"{CLAIMS}{claim.pk}/change/"):
        with CaptureQueriesContext(connection) as queries:
            page = client.get(url)
        body = page.content.decode()
        assert page.status_code == 200
        assert (str(person.subject.uuid) in body) is (url != CLAIMS), "ids are on the page of the row"
        assert "birthdate" in body
        assert ("•••" in body) is (url != CLAIMS)
        assert CANARY not in body
        assert claim.value.ciphertext not in body
        assert not any('"value"' in query["sql"] for query in queries)


def test_list_has_constant_queries_and_a_capped_count(
    make_person: Callable[..., Person], officer: Officer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = officer("view_storedclaim")
    counts = []
    for _ in range(2):
        for _ in range(4):
            make_person().store({"birthdate": CANARY, "address": "Bern"})
        with CaptureQueriesContext(connection) as queries:
            client.get(CLAIMS, {"_facets": "True"})
        counts.append(len(queries))
        assert not any("DISTINCT" in query["sql"] for query in queries)
        assert all("LIMIT" in query["sql"] for query in queries if "COUNT(" in query["sql"])
    assert counts[0] == counts[1]
    monkeypatch.setattr("django_phi_oidc.audit.bounded_lists.MAX_ROWS", 3)
    assert client.get(CLAIMS).context["cl"].result_count == 3


@pytest.mark.parametrize("is_superuser", [False, True])
def test_claims_cannot_be_added_changed_or_deleted(person: Person, officer: Officer, is_superuser: bool) -> None:
    person.store({"birthdate": CANARY})
    claim = StoredClaim.objects.get()
    permissions = [f"{action}_storedclaim" for action in ("add", "change", "delete", "view", "scrub", "reveal")]
    client = officer(*permissions, is_superuser=is_superuser)
    assert client.get(f"{CLAIMS}add/").status_code == 403
    assert client.post(f"{CLAIMS}{claim.pk}/change/", {"name": "other"}).status_code == 403
    for response in (
        client.get(f"{CLAIMS}{claim.pk}/delete/"),
        client.post(f"{CLAIMS}{claim.pk}/delete/", {"post": "yes"}),
    ):
        assert response.status_code == 403
    assert "delete" not in client.get(f"{CLAIMS}{claim.pk}/change/").content.decode().split("<main")[1]
    assert "delete_selected" not in client.get(CLAIMS).content.decode()
    assert StoredClaim.objects.filter(name="birthdate").exists()


def test_pages_need_the_view_permission(person: Person, officer: Officer) -> None:
    person.store({"birthdate": CANARY})
    hold(person)
    urls = [CLAIMS, f"{CLAIMS}report/", f"{CLAIMS}{StoredClaim.objects.get().pk}/change/"]
    urls += [HOLDS, f"{HOLDS}{LegalHold.objects.get().pk}/change/"]
    viewer = officer("view_storedclaim")
    assert [viewer.get(url).status_code for url in urls] == [200, 200, 200, 403, 403]
    hold_viewer = officer("view_legalhold")
    assert [hold_viewer.get(url).status_code for url in urls] == [403, 403, 403, 200, 200]
    assert all("/admin/login/" in Client().get(url)["Location"] for url in urls)


def test_filters_by_name_purpose_end_and_search_by_person(make_person: Callable[..., Person], officer: Officer) -> None:
    first, second = make_person(), make_person()
    for number, person in enumerate((first, second)):
        person.store({"birthdate": CANARY, "address": "Bern"}, now=NOW - (2 - number) * DAY)
    hold(second)
    client = officer("view_storedclaim")
    pk = {(claim.subject_id, claim.name): claim.pk for claim in StoredClaim.objects.all()}
    address, birthdate = (
        {pk[person.subject.pk, name] for person in (first, second)} for name in ("address", "birthdate")
    )
    assert list_ids(client) == address | birthdate
    assert list_ids(client, name="address") == list_ids(client, purpose="HOPERAT") == address
    assert (
        list_ids(client, name="birthdate")
        == list_ids(client, purpose="TREAT")
        == list_ids(client, end="session")
        == birthdate
    )
    assert list_ids(client, name="undeclared") == set()
    # The claim of the second person is expired, too, but on hold.
    assert list_ids(client, end="overdue") == {pk[first.subject.pk, "address"]}
    claims_of_second = {pk[second.subject.pk, name] for name in ("address", "birthdate")}
    assert list_ids(client, end="held") == claims_of_second
    for term in (str(second.subject.uuid), f" {second.subject.uuid.hex} ", second.user.get_username()):
        assert list_ids(client, q=term) == claims_of_second
    assert list_ids(client, q=second.user.get_username()[:-1]) == claims_of_second
    assert list_ids(client, q=second.user.get_username()[1:]) == set()
    assert list_ids(client, q=str(second.subject.uuid)[:-1]) == set()
    body = client.get(CLAIMS).content.decode()
    assert all(f"?name={name}" in body for name in ("address", "birthdate", "allergies"))
    assert "?name=groups" not in body, "a claim without retention is never stored"


@pytest.mark.parametrize(
    ("fields", "is_orphaned", "text"),
    [
        ({"expires_at": NOW + 3 * DAY}, False, "3 days left"),
        ({"expires_at": NOW + timedelta(hours=2)}, False, "2 hours left"),
        ({"expires_at": NOW - 2 * DAY}, False, "Overdue for 2 days"),
        ({"expires_at": NOW + DAY, "retained_until": NOW - timedelta(hours=1)}, False, "Overdue for 1 hour"),
        ({"expires_at": None}, False, "Until the end of the session"),
        ({"expires_at": None}, True, "Overdue: its session has ended"),
        ({"expires_at": NOW - DAY, "held_until": FOREVER}, False, "On legal hold until it is released"),
        ({"expires_at": None, "held_until": NOW + DAY}, True, "On legal hold until 2026-11-25 12:00:00 UTC"),
        ({"expires_at": NOW + 3 * DAY, "held_until": NOW}, False, "3 days left"),
    ],
)
def test_retention_is_shown_in_words(fields: dict[str, Any], is_orphaned: bool, text: str) -> None:
    claim = StoredClaim(name="address", **fields)
    assert describe_retention(claim, is_orphaned=is_orphaned, now=NOW).replace("\xa0", " ") == text


def test_list_shows_claims_whose_session_is_gone_as_overdue(person: Person, officer: Officer) -> None:
    person.store({"birthdate": CANARY})
    client = officer("view_storedclaim")
    assert "Until the end of the session" in client.get(CLAIMS).content.decode()
    # By SQL: a deletion by Django erases the claims.
    OIDCSession.objects.filter(pk=person.session_id)._raw_delete("default")
    assert "Overdue: its session has ended" in client.get(CLAIMS).content.decode()


def erase(client: Client, *claims: StoredClaim, **also: str) -> Any:
    selected = {"action": "erase_now", "_selected_action": [str(claim.pk) for claim in claims], "post": "yes", **also}
    return client.post(CLAIMS, selected, follow=True)


def test_erase_now_erases_claims_of_selected_persons_except_on_hold(
    make_person: Callable[..., Person], officer: Officer, outbox_events: Events
) -> None:
    selected, held, other = (make_person() for _ in range(3))
    other_issuer = make_person(user=selected.user, issuer="https://other.example.test")
    for person in (selected, held, other, other_issuer):
        person.store({"birthdate": CANARY, "address": "Bern"})
    hold(held)
    client = officer("view_storedclaim", "scrub_storedclaim")
    rows = [StoredClaim.objects.get(subject=person.subject, name="birthdate") for person in (selected, held)]
    assert list_messages(erase(client, *rows)) == [
        "Erased claims: 4, of persons: 1.",
        "1 claim is on legal hold and was skipped.",
    ]
    assert set(StoredClaim.objects.values_list("subject", flat=True)) == {held.subject.pk, other.subject.pk}
    erased = outbox_events("claim.scrubbed")
    assert sorted((event.actor, event.subject, detail["cause"]) for event, detail in erased) == sorted(
        (str(client.user.pk), str(person.subject.uuid), "requested")  # type: ignore[attr-defined]
        for person in (selected, other_issuer)
    )


def test_erase_now_needs_the_scrub_permission(person: Person, officer: Officer) -> None:
    person.store({"birthdate": CANARY})
    claim = StoredClaim.objects.get()
    viewer = officer("view_storedclaim", "reveal_storedclaim")
    assert "erase_now" not in viewer.get(CLAIMS).content.decode()
    erase(viewer, claim)
    assert StoredClaim.objects.exists()
    assert list_messages(erase(officer("view_storedclaim", "scrub_storedclaim"), claim)) == [
        "Erased claims: 1, of persons: 1."
    ]
    assert not StoredClaim.objects.exists()


def test_erase_now_of_too_many_rows_erases_nothing(person: Person, officer: Officer) -> None:
    client = officer("view_storedclaim", "scrub_storedclaim")
    fields = {"subject": person.subject, "value": '""', "purpose": "TREAT", "obtained_at": NOW, "expires_at": NOW + DAY}
    StoredClaim.objects.bulk_create(StoredClaim(name=f"claim {number}", **fields) for number in range(501))
    first = StoredClaim.objects.all()[0]
    assert list_messages(erase(client, first, select_across="1")) == ["Nothing was done: select at most 500 rows."]
    assert StoredClaim.objects.count() == 501
    assert list_messages(erase(client, first)) == ["Erased claims: 501, of persons: 1."]


def read_table(response: Any) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", response.content.decode().split("<tbody>")[1], re.DOTALL)
    return [
        [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


def test_report_shows_counts_by_name_and_what_is_overdue(make_person: Callable[..., Person], officer: Officer) -> None:
    persons = [make_person(), make_person()]
    client = officer("view_storedclaim")
    assert "No claims are stored." in client.get(f"{CLAIMS}report/").content.decode()
    for person in persons:
        person.store({"birthdate": CANARY, "address": "Bern"})
    hold(persons[1])
    with clock.override_clock(lambda: NOW + DAY):
        page = officer("view_storedclaim").get(f"{CLAIMS}report/")
    since, until = "2026-11-24 12:00", "2026-11-25 12:00"
    assert read_table(page) == [
        ["Address", "Healthcare operations", "2", "0", "1", "1", "1", since, until],
        ["Birthdate", "Treatment", "2", "2", "1", "0", "0", since, "end of session"],
    ]
    assert f'<a href="{CLAIMS}?end=overdue">1</a>, the first since {until}:00' in page.content.decode()
    assert HOLDS not in page.content.decode(), "no link without the permission to view holds"
    assert 'role="alert"' not in page.content.decode(), "not late yet"
    assert CANARY not in page.content.decode()
    with clock.override_clock(lambda: NOW + DAY + timedelta(hours=1, seconds=1)):
        late = officer("view_storedclaim").get(f"{CLAIMS}report/")
    assert "Check that the task phi_oidc.scrub is running." in late.content.decode()
    assert f'href="{CLAIMS}report/"' in client.get(CLAIMS).content.decode()


def test_report_shows_retention_keys_or_that_they_are_unavailable(
    person: Person, officer: Officer, settings: Any, tmp_path: Path
) -> None:
    client = officer("view_storedclaim")
    assert "Retention keys" not in client.get(f"{CLAIMS}report/").content.decode()
    use_retention_keys(settings, tmp_path)
    person.store({"birthdate": CANARY, "address": "Bern"})
    hold(person)
    assert "3, the oldest from 2026-11-24; 1 of legal holds" in client.get(f"{CLAIMS}report/").content.decode()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": tmp_path / "nowhere"})
    page = client.get(f"{CLAIMS}report/")
    assert page.status_code == 200
    assert "The retention keys are unavailable." in page.content.decode()


def place(client: Client, subject: object, *, reason: str = "Docket 26-117", until: tuple[str, str] = ("", "")) -> Any:
    data = {"subject": str(subject), "reason": reason, "until_0": until[0], "until_1": until[1]}
    return client.post(f"{HOLDS}add/", data, follow=True)


@pytest.mark.parametrize("named_by", ["uuid", "its hexadecimal digits", "primary key"])
def test_add_places_a_hold_with_the_administrator_as_actor(
    named_by: str, person: Person, officer: Officer, outbox_events: Events
) -> None:
    person.store({"address": "Bern"})
    client = officer("view_legalhold", "add_legalhold")
    subject: object = {"uuid": person.subject.uuid, "primary key": person.subject.pk}.get(
        named_by, person.subject.uuid.hex
    )
    page = place(client, subject, until=("2026-12-24", "18:00:00"))
    placed = LegalHold.objects.get()
    assert page.redirect_chain[0][0] == HOLDS
    assert str(placed.pk) in list_messages(page)[0]
    pk = str(client.user.pk)  # type: ignore[attr-defined]
    assert (placed.subject, placed.reason, placed.placed_at, placed.placed_by) == (
        person.subject,
        "Docket 26-117",
        NOW,
        pk,
    )
    assert (placed.until, placed.released_at) == (NOW + timedelta(days=30, hours=6), None)
    assert StoredClaim.objects.get().held_until == placed.until
    ((event, detail),) = outbox_events("hold.placed")
    assert (event.actor, event.subject, event.resource) == (pk, str(person.subject.uuid), f"LegalHold/{placed.pk}")
    assert detail == {"until": "2026-12-24T18:00:00+00:00"}
    assert [entry.object_id for entry in LogEntry.objects.all()] == [str(placed.pk)]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"subject": ""}, "This field is required"),
        ({"subject": uuid.UUID(int=1)}, "valid choice"),
        ({"subject": "0"}, "valid choice"),
        ({"subject": "amina"}, "valid choice"),
        ({"reason": "  "}, "This field is required"),
        ({"reason": "x" * 256}, "at most 255"),
        ({"until": ("2026-11-24", "12:00:00")}, "This time is in the past"),
        ({"until": ("2026-11-24", "")}, "Enter a valid time"),
    ],
)
def test_refused_hold_shows_the_error_and_is_not_placed(
    changed: dict[str, Any], error: str, person: Person, officer: Officer, outbox_events: Events
) -> None:
    client = officer("view_legalhold", "add_legalhold")
    page = place(client, **{"subject": person.subject.uuid, **changed})
    assert error in page.content.decode()
    assert (LegalHold.objects.count(), outbox_events("hold.placed"), LogEntry.objects.count()) == (0, [], 0)
    place(client, person.subject.uuid)
    assert LegalHold.objects.count() == 1


def test_g5_officer_suspends_the_accounting(person: Person, officer: Officer, outbox_events: Events) -> None:
    client = officer("view_legalhold", "add_legalhold")
    page = client.get(f"{HOLDS}add/").content.decode()
    assert "TREAT" not in page
    assert 'value="HLEGAL"' in page
    form = {"subject": str(person.subject.uuid), "reason": "Docket 26-117", "suspended_purposes": ["HLEGAL", "GOV"]}
    form |= {"suspended_until_0": "2026-12-20", "suspended_until_1": "00:00"}
    for changed in (
        {"agency": ""},
        {"agency": "Board", "oral_statement_at_0": "2026-11-01"},
        {"suspended_until_0": ""},
    ):
        whole = {**form, "agency": "Board", "oral_statement_at_1": "00:00", **changed}
        assert client.post(f"{HOLDS}add/", whole).status_code == 200, changed
    assert not LegalHold.objects.exists()
    client.post(f"{HOLDS}add/", {**form, "agency": "Board"})
    hold = LegalHold.objects.get()
    assert (hold.agency, hold.suspended_purposes, hold.oral_statement_at) == ("Board", ["GOV", "HLEGAL"], None)
    ((_, detail),) = outbox_events("hold.placed")
    assert (detail["suspended_until"], detail["statement"]) == ("2026-12-20T00:00:00+00:00", "written")
    assert "Board" in client.get(f"{HOLDS}{hold.pk}/change/").content.decode()


def test_hold_without_retention_keys_shows_the_error_and_is_not_placed(
    person: Person, officer: Officer, settings: Any, tmp_path: Path
) -> None:
    person.store({"address": "Bern"})
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": tmp_path / "nowhere"})
    client = officer("view_legalhold", "add_legalhold")
    assert "key_missing" in list_messages(place(client, person.subject.uuid))[0]
    assert not LegalHold.objects.exists()
    use_retention_keys(settings, tmp_path)
    place(client, person.subject.uuid)
    assert LegalHold.objects.count() == 1


def release(client: Client, *holds: LegalHold) -> Any:
    form = {"action": "release", "_selected_action": [str(row.pk) for row in holds], "post": "yes"}
    return client.post(HOLDS, form, follow=True)


def test_release_ends_selected_holds_with_the_administrator_as_actor(
    make_person: Callable[..., Person], officer: Officer, outbox_events: Events
) -> None:
    first, second, other = (hold(make_person()) for _ in range(3))
    release_hold(second.pk, origin=Origin(), now=NOW)
    client = officer("view_legalhold", "change_legalhold")
    assert list_messages(release(client, first, second)) == [
        "1 hold was released.",
        "1 hold had already ended and was skipped.",
    ]
    pk = str(client.user.pk)  # type: ignore[attr-defined]
    first.refresh_from_db()
    assert (first.released_at, first.released_by) == (NOW, pk)
    assert {event.actor for event, _ in outbox_events("hold.released")} == {"", pk}
    assert list_ids(client, HOLDS, state="active") == {other.pk}
    assert list_ids(client, HOLDS, state="over") == {first.pk, second.pk}


@pytest.mark.parametrize(
    ("permitted", "answers"),
    [
        (["view_legalhold"], (200, 403, False)),
        (["view_legalhold", "add_legalhold"], (200, 200, False)),
        (["view_legalhold", "change_legalhold"], (200, 403, True)),
        (["add_legalhold"], (403, 200, False)),
        (["delete_legalhold"], (403, 403, False)),
    ],
)
def test_each_action_on_a_hold_needs_its_permission(
    permitted: list[str], answers: tuple[int, int, bool], person: Person, officer: Officer
) -> None:
    placed, client = hold(person), officer(*permitted)
    release(client, placed)
    placed.refresh_from_db()
    results = client.get(HOLDS).status_code, client.get(f"{HOLDS}add/").status_code, placed.released_at is not None
    assert results == answers


@pytest.mark.parametrize("is_superuser", [False, True])
def test_holds_cannot_be_changed_or_deleted(person: Person, officer: Officer, is_superuser: bool) -> None:
    placed = hold(person)
    client = officer(*(f"{action}_legalhold" for action in ("view", "add", "change")), is_superuser=is_superuser)
    changed = {"subject": person.subject.pk, "reason": "another", "until_0": "", "until_1": ""}
    assert client.post(f"{HOLDS}{placed.pk}/change/", changed).status_code == 403
    assert client.post(f"{HOLDS}{placed.pk}/delete/", {"post": "yes"}).status_code == 403
    page = client.get(f"{HOLDS}{placed.pk}/change/").content.decode()
    assert "Docket 26-117" in page
    assert "deletelink" not in page
    assert 'name="_save"' not in page
    assert "delete_selected" not in client.get(HOLDS).content.decode()
    assert LegalHold.objects.get().reason == "Docket 26-117"


def delete_the_user(client: Client, person: Person) -> Any:
    return client.post(f"{USERS}{person.user.pk}/delete/", {"post": "yes"}, follow=True)


def delete_some_users(client: Client, person: Person) -> Any:
    selected = {"action": "delete_selected", "_selected_action": [str(person.user.pk)], "post": "yes"}
    return client.post(USERS, selected, follow=True)


def delete_the_link(client: Client, person: Person) -> Any:
    return client.post(f"{SUBJECTS}{person.subject.pk}/delete/", {"post": "yes"}, follow=True)


@pytest.mark.parametrize("delete", [delete_the_user, delete_some_users, delete_the_link])
def test_deleting_a_person_on_hold_shows_the_hold_and_deletes_nothing(
    delete: Callable[[Client, Person], Any], person: Person, officer: Officer
) -> None:
    person.store({"birthdate": CANARY, "address": "Bern"})
    placed = hold(person)
    client = officer("delete_user", "view_user", "delete_pairwisesubject", "view_pairwisesubject", "view_legalhold")
    page = delete(client, person)
    assert page.status_code == 200
    assert "protected related objects" in page.content.decode()
    assert f'Legal hold: <a href="{HOLDS}{placed.pk}/change/">{placed.pk}</a>' in page.content.decode()
    assert StoredClaim.objects.count() == 2
    release_hold(placed.pk, origin=Origin(), now=NOW)
    assert "protected" not in delete(client, person).content.decode()
    assert not StoredClaim.objects.exists()
    assert not PairwiseSubject.objects.exists()
    assert LegalHold.objects.get().subject is None


@pytest.mark.parametrize("delete", [delete_the_user, delete_some_users, delete_the_link])
def test_deleting_a_person_with_claims_needs_only_the_unlink_permission(
    delete: Callable[[Client, Person], Any], person: Person, officer: Officer
) -> None:
    person.store({"birthdate": CANARY})
    delete(officer("delete_user", "view_user", "view_pairwisesubject", "view_storedclaim"), person)
    assert StoredClaim.objects.exists()
    delete(officer("delete_user", "view_user", "view_pairwisesubject", "delete_pairwisesubject"), person)
    assert not StoredClaim.objects.exists()


def test_unlinking_a_person_with_a_new_hold_shows_the_error(person: Person, officer: Officer) -> None:
    """The page was requested before the hold was placed."""
    person.store({"birthdate": CANARY})
    PairwiseSubject.objects.filter(pk=person.subject.pk).update(held_until=NOW + DAY)
    client = officer("delete_pairwisesubject", "view_pairwisesubject")
    page = delete_the_link(client, person)
    assert list_messages(page) == ["A legal hold protects the data of this person. Release it first."]
    assert StoredClaim.objects.count() == 1
