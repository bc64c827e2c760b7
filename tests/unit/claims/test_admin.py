"""Claims and legal holds in the admin: who may look, erase, hold and release; and what no page shows."""

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
from django_phi_oidc.claims import admin
from django_phi_oidc.claims.legal_holds import place_hold, release_hold
from django_phi_oidc.claims.models import NO_SESSION, LegalHold, StoredClaim
from django_phi_oidc.fields import EncryptedText
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.claims_fixtures import DAY, NOW, Person
from tests.support.officers import sign_in_officer

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
CLAIMS, HOLDS = "/admin/django_phi_oidc/storedclaim/", "/admin/django_phi_oidc/legalhold/"
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
    """Return what signs in somebody of the staff with these permissions."""
    return sign_in_officer


def told(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def found(client: Client, page: str = CLAIMS, **asked: str) -> set[Any]:
    return {each.pk for each in client.get(page, asked).context["cl"].result_list}


def hold(person: Person, *, until: Any = None) -> LegalHold:
    return place_hold(person.subject.uuid, reason="Docket 26-117", until=until, origin=Origin(), now=NOW)


def test_claim_shows_the_session_that_it_ends_with_and_none_where_it_outlives_sessions(
    person: Person, officer: Officer
) -> None:
    person.store({"birthdate": CANARY, "address": {"locality": "Bern"}})
    client = officer("view_storedclaim")
    shown = {
        claim.name: client.get(f"{CLAIMS}{claim.pk}/change/").content.decode() for claim in StoredClaim.objects.all()
    }
    assert [name for name, page in shown.items() if str(person.session_id) in page] == ["birthdate"]
    assert not [name for name, page in shown.items() if str(NO_SESSION) in page]


def test_claims_are_listed_and_shown_without_a_value_which_is_not_even_read(person: Person, officer: Officer) -> None:
    person.store({"birthdate": CANARY, "address": {"locality": "Bern"}})
    claim = StoredClaim.objects.get(name="birthdate")
    assert isinstance(claim.value, EncryptedText)
    client = officer("view_storedclaim")
    for url in (CLAIMS, f"{CLAIMS}{claim.pk}/change/"):
        with CaptureQueriesContext(connection) as asked:
            page = client.get(url)
        body = page.content.decode()
        assert page.status_code == 200
        assert str(person.subject.uuid) in body
        assert "birthdate" in body
        assert "•••" in body
        assert CANARY not in body
        assert claim.value.ciphertext not in body
        assert not any('"value"' in query["sql"] for query in asked)


def test_list_asks_as_much_for_many_claims_as_for_one_and_counts_no_further_than_its_cap(
    make_person: Callable[..., Person], officer: Officer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = officer("view_storedclaim")
    counts = []
    for _ in range(2):
        for _ in range(4):
            make_person().store({"birthdate": CANARY, "address": "Bern"})
        with CaptureQueriesContext(connection) as asked:
            client.get(CLAIMS, {"_facets": "True"})
        counts.append(len(asked))
        assert not any("DISTINCT" in query["sql"] for query in asked)
        assert all("LIMIT" in query["sql"] for query in asked if "COUNT(" in query["sql"])
    assert counts[0] == counts[1]
    monkeypatch.setattr("django_phi_oidc.audit.admin_base.MAX_COUNTED_ROWS", 3)
    assert client.get(CLAIMS).context["cl"].result_count == 3


@pytest.mark.parametrize("is_superuser", [False, True])
def test_nobody_adds_changes_or_deletes_a_claim(person: Person, officer: Officer, is_superuser: bool) -> None:
    person.store({"birthdate": CANARY})
    claim = StoredClaim.objects.get()
    everything = [f"{act}_storedclaim" for act in ("add", "change", "delete", "view", "scrub", "reveal")]
    client = officer(*everything, is_superuser=is_superuser)
    assert client.get(f"{CLAIMS}add/").status_code == 403
    assert client.post(f"{CLAIMS}{claim.pk}/change/", {"name": "other"}).status_code == 403
    for answer in (
        client.get(f"{CLAIMS}{claim.pk}/delete/"),
        client.post(f"{CLAIMS}{claim.pk}/delete/", {"post": "yes"}),
    ):
        assert answer.status_code == 403
    assert "delete" not in client.get(f"{CLAIMS}{claim.pk}/change/").content.decode().split("<main")[1]
    assert "delete_selected" not in client.get(CLAIMS).content.decode()
    assert StoredClaim.objects.filter(name="birthdate").exists()


def test_pages_are_for_those_who_may_view_them(person: Person, officer: Officer) -> None:
    person.store({"birthdate": CANARY})
    hold(person)
    urls = [CLAIMS, f"{CLAIMS}report/", f"{CLAIMS}{StoredClaim.objects.get().pk}/change/"]
    urls += [HOLDS, f"{HOLDS}{LegalHold.objects.get().pk}/change/"]
    looking = officer("view_storedclaim")
    assert [looking.get(url).status_code for url in urls] == [200, 200, 200, 403, 403]
    holding = officer("view_legalhold")
    assert [holding.get(url).status_code for url in urls] == [403, 403, 403, 200, 200]
    assert all("/admin/login/" in Client().get(url)["Location"] for url in urls)


def test_filters_find_by_name_purpose_and_end_and_the_search_a_person(
    make_person: Callable[..., Person], officer: Officer
) -> None:
    first, second = make_person(), make_person()
    for number, each in enumerate((first, second)):
        each.store({"birthdate": CANARY, "address": "Bern"}, now=NOW - (2 - number) * DAY)
    hold(second)
    client = officer("view_storedclaim")
    pk = {(claim.subject_id, claim.name): claim.pk for claim in StoredClaim.objects.all()}
    address, birthdate = ({pk[each.subject.pk, name] for each in (first, second)} for name in ("address", "birthdate"))
    assert found(client) == address | birthdate
    assert found(client, name="address") == found(client, purpose="HOPERAT") == address
    assert (
        found(client, name="birthdate") == found(client, purpose="TREAT") == found(client, end="session") == birthdate
    )
    assert found(client, name="undeclared") == set()
    # Of the second one, too, the time is over at this moment; a hold keeps it.
    assert found(client, end="overdue") == {pk[first.subject.pk, "address"]}
    theirs = {pk[second.subject.pk, name] for name in ("address", "birthdate")}
    assert found(client, end="held") == theirs
    for term in (str(second.subject.uuid), f" {second.subject.uuid.hex} ", second.user.get_username()):
        assert found(client, q=term) == theirs
    assert found(client, q=second.user.get_username()[:-1]) == found(client, q=str(second.subject.uuid)[:-1]) == set()
    body = client.get(CLAIMS).content.decode()
    assert all(f"?name={name}" in body for name in ("address", "birthdate", "allergies"))
    assert "?name=groups" not in body, "that is never stored"


def erase(client: Client, *claims: StoredClaim, **also: str) -> Any:
    chosen = {"action": "erase_now", "_selected_action": [str(claim.pk) for claim in claims], **also}
    return client.post(CLAIMS, chosen, follow=True)


def test_erase_now_erases_all_claims_of_the_persons_chosen_but_of_those_held(
    make_person: Callable[..., Person], officer: Officer, outbox_events: Events
) -> None:
    chosen, held, other = (make_person() for _ in range(3))
    elsewhere = make_person(user=chosen.user, issuer="https://other.example.test")
    for each in (chosen, held, other, elsewhere):
        each.store({"birthdate": CANARY, "address": "Bern"})
    hold(held)
    client = officer("view_storedclaim", "scrub_storedclaim")
    rows = [StoredClaim.objects.get(subject=each.subject, name="birthdate") for each in (chosen, held)]
    assert told(erase(client, *rows)) == [
        "Claims that were erased: 4, of persons: 1.",
        "1 person is kept by a legal hold: nothing of theirs was erased.",
    ]
    assert set(StoredClaim.objects.values_list("subject", flat=True)) == {held.subject.pk, other.subject.pk}
    erased = outbox_events("claim.scrubbed")
    assert sorted((event.actor, event.subject, detail["cause"]) for event, detail in erased) == sorted(
        (str(client.user.pk), str(each.subject.uuid), "requested")  # type: ignore[attr-defined]
        for each in (chosen, elsewhere)
    )


def test_erase_now_is_for_those_who_may_scrub(person: Person, officer: Officer) -> None:
    person.store({"birthdate": CANARY})
    claim = StoredClaim.objects.get()
    looking = officer("view_storedclaim", "reveal_storedclaim")
    assert "erase_now" not in looking.get(CLAIMS).content.decode()
    erase(looking, claim)
    assert StoredClaim.objects.exists()
    assert told(erase(officer("view_storedclaim", "scrub_storedclaim"), claim)) == [
        "Claims that were erased: 1, of persons: 1."
    ]
    assert not StoredClaim.objects.exists()


def test_erase_now_of_too_many_persons_erases_nothing(
    make_person: Callable[..., Person], officer: Officer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "MAX_PERSONS", 2)
    client = officer("view_storedclaim", "scrub_storedclaim")
    for _ in range(3):
        make_person().store({"birthdate": CANARY, "address": "Bern"})
    first = StoredClaim.objects.all()[0]
    assert told(erase(client, first, select_across="1")) == [
        "These are more than 2 persons: nothing was erased. Choose fewer."
    ]
    assert StoredClaim.objects.count() == 6
    assert told(erase(client, first)) == ["Claims that were erased: 2, of persons: 1."]


def cells(response: Any) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", response.content.decode().split("<tbody>")[1], re.DOTALL)
    return [
        [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


def test_report_shows_counts_by_name_and_what_is_overdue(make_person: Callable[..., Person], officer: Officer) -> None:
    persons = [make_person(), make_person()]
    client = officer("view_storedclaim")
    assert "No claims are stored." in client.get(f"{CLAIMS}report/").content.decode()
    for each in persons:
        each.store({"birthdate": CANARY, "address": "Bern"})
    hold(persons[1])
    with clock.override_clock(lambda: NOW + DAY):
        page = officer("view_storedclaim").get(f"{CLAIMS}report/")
    since, until = "2026-11-24 12:00", "2026-11-25 12:00"
    assert cells(page) == [
        ["address", "HOPERAT", "2", "0", "1", "1", "1", since, until],
        ["birthdate", "TREAT", "2", "2", "1", "0", "0", since, "end of session"],
    ]
    assert f'<a href="{CLAIMS}?end=overdue">1</a>, the first since {until}:00' in page.content.decode()
    assert HOLDS not in page.content.decode(), "for those who may look at them"
    assert 'role="alert"' not in page.content.decode(), "the next scrub is due"
    assert CANARY not in page.content.decode()
    with clock.override_clock(lambda: NOW + DAY + timedelta(hours=1, seconds=1)):
        late = officer("view_storedclaim").get(f"{CLAIMS}report/")
    assert "does the task phi_oidc.scrub run?" in late.content.decode()
    assert f'href="{CLAIMS}report/"' in client.get(CLAIMS).content.decode()


def test_report_tells_of_retention_keys_and_that_they_are_away(
    person: Person, officer: Officer, settings: Any, tmp_path: Path
) -> None:
    client = officer("view_storedclaim")
    assert "Retention keys" not in client.get(f"{CLAIMS}report/").content.decode()
    settings.PHI_OIDC = {**settings.PHI_OIDC, "RETENTION_KEYS": tmp_path}
    person.store({"birthdate": CANARY, "address": "Bern"})
    hold(person)
    assert "3, the oldest of 2026-11-24; 1 of holds" in client.get(f"{CLAIMS}report/").content.decode()
    settings.PHI_OIDC = {**settings.PHI_OIDC, "RETENTION_KEYS": tmp_path / "nowhere"}
    page = client.get(f"{CLAIMS}report/")
    assert page.status_code == 200
    assert "can&#x27;t be reached" in page.content.decode() or "can't be reached" in page.content.decode()


def place(client: Client, subject: object, *, reason: str = "Docket 26-117", until: tuple[str, str] = ("", "")) -> Any:
    answers = {"subject": str(subject), "reason": reason, "until_0": until[0], "until_1": until[1]}
    return client.post(f"{HOLDS}add/", answers, follow=True)


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
    assert str(placed.pk) in told(page)[0]
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
    ("changed", "fault"),
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
def test_add_that_is_refused_says_why_and_keeps_nobody(
    changed: dict[str, Any], fault: str, person: Person, officer: Officer, outbox_events: Events
) -> None:
    client = officer("view_legalhold", "add_legalhold")
    page = place(client, **{"subject": person.subject.uuid, **changed})
    assert fault in page.content.decode()
    assert (LegalHold.objects.count(), outbox_events("hold.placed"), LogEntry.objects.count()) == (0, [], 0)
    place(client, person.subject.uuid)
    assert LegalHold.objects.count() == 1


def test_add_while_the_retention_keys_are_away_says_so_and_keeps_nobody(
    person: Person, officer: Officer, settings: Any, tmp_path: Path
) -> None:
    person.store({"address": "Bern"})
    settings.PHI_OIDC = {**settings.PHI_OIDC, "RETENTION_KEYS": tmp_path / "nowhere"}
    client = officer("view_legalhold", "add_legalhold")
    assert "key_missing" in told(place(client, person.subject.uuid))[0]
    assert not LegalHold.objects.exists()
    settings.PHI_OIDC = {**settings.PHI_OIDC, "RETENTION_KEYS": tmp_path}
    place(client, person.subject.uuid)
    assert LegalHold.objects.count() == 1


def release(client: Client, *holds: LegalHold) -> Any:
    return client.post(HOLDS, {"action": "release", "_selected_action": [str(each.pk) for each in holds]}, follow=True)


def test_release_ends_the_holds_chosen_with_the_administrator_as_actor(
    make_person: Callable[..., Person], officer: Officer, outbox_events: Events
) -> None:
    first, second, other = (hold(make_person()) for _ in range(3))
    release_hold(second.pk, origin=Origin(), now=NOW)
    client = officer("view_legalhold", "change_legalhold")
    assert told(release(client, first, second)) == ["1 hold was released."]
    pk = str(client.user.pk)  # type: ignore[attr-defined]
    first.refresh_from_db()
    assert (first.released_at, first.released_by) == (NOW, pk)
    assert {event.actor for event, _ in outbox_events("hold.released")} == {"", pk}
    assert found(client, HOLDS, state="lasts") == {other.pk}
    assert found(client, HOLDS, state="over") == {first.pk, second.pk}


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
def test_each_act_on_a_hold_needs_its_permission(
    permitted: list[str], answers: tuple[int, int, bool], person: Person, officer: Officer
) -> None:
    placed, client = hold(person), officer(*permitted)
    release(client, placed)
    placed.refresh_from_db()
    seen = client.get(HOLDS).status_code, client.get(f"{HOLDS}add/").status_code, placed.released_at is not None
    assert seen == answers


@pytest.mark.parametrize("is_superuser", [False, True])
def test_nobody_changes_or_deletes_a_hold(person: Person, officer: Officer, is_superuser: bool) -> None:
    placed = hold(person)
    client = officer(*(f"{act}_legalhold" for act in ("view", "add", "change")), is_superuser=is_superuser)
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
    chosen = {"action": "delete_selected", "_selected_action": [str(person.user.pk)], "post": "yes"}
    return client.post(USERS, chosen, follow=True)


def delete_the_link(client: Client, person: Person) -> Any:
    return client.post(f"{SUBJECTS}{person.subject.pk}/delete/", {"post": "yes"}, follow=True)


@pytest.mark.parametrize("delete", [delete_the_user, delete_some_users, delete_the_link])
def test_deletion_of_a_person_who_is_held_names_the_hold_and_deletes_nothing(
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
def test_deletion_of_a_person_with_claims_needs_the_permission_to_unlink_and_no_other(
    delete: Callable[[Client, Person], Any], person: Person, officer: Officer
) -> None:
    person.store({"birthdate": CANARY})
    delete(officer("delete_user", "view_user", "view_pairwisesubject", "view_storedclaim"), person)
    assert StoredClaim.objects.exists()
    delete(officer("delete_user", "view_user", "view_pairwisesubject", "delete_pairwisesubject"), person)
    assert not StoredClaim.objects.exists()


def test_unlinking_somebody_whom_a_hold_has_reached_just_now_says_so(person: Person, officer: Officer) -> None:
    """The page was asked for before the hold, and its row is held by whoever places it."""
    person.store({"birthdate": CANARY})
    PairwiseSubject.objects.filter(pk=person.subject.pk).update(held_until=NOW + DAY)
    client = officer("delete_pairwisesubject", "view_pairwisesubject")
    page = delete_the_link(client, person)
    assert told(page) == ["A legal hold keeps what is held of this person: release it first."]
    assert StoredClaim.objects.count() == 1
