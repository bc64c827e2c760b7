"""The page on which users see who accessed their own record, over requests."""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent, AuditLeaf
from django_phi_oidc.contrib.individual_rights.models import AccountingCopy
from django_phi_oidc.contrib.legal_holds.accounting_suspensions import AccountingSuspension
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from tests.support.audit_log import seal_now
from tests.support.audit_outage import audit_database_fails
from tests.support.audit_tampering import EVENT, is_postgresql, sql, without_triggers
from tests.support.claims_fixtures import NOW
from tests.support.disclosure_events import DAY, NURSE, RESOURCES, STAFF, look, reveal
from tests.support.session_fixtures import SecureClient, SignedIn
from tests.unit.contrib.individual_rights.accounting_urls import TEMPLATE

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.contrib.individual_rights.accounting_urls"),
]
PAGE = {"Accept": "text/html"}


@pytest.fixture(autouse=True)
def _portal(settings: Any) -> Iterator[None]:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PATIENT_RESOURCES": RESOURCES}
    loader = ("django.template.loaders.locmem.Loader", {"record.html": TEMPLATE})
    also = "django.template.loaders.app_directories.Loader"
    options = {**settings.TEMPLATES[0]["OPTIONS"], "loaders": [loader, also]}
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": options}]
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def person(sign_in: Callable[[], SignedIn]) -> SignedIn:
    return sign_in()


def lines(page: Any) -> list[str]:
    assert page.status_code == 200, page
    return [unescape(line) for line in re.findall("<li>(.*)</li>", page.content.decode())]


def way(page: Any, name: str) -> str:
    match = re.search(f'id="{name}" href="([^"]*)"', page.content.decode())
    return unescape(match[1]) if match else ""


def accounted() -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action="subject.accounted").order_by("id"))


def test_page_lists_disclosures_after_recording_an_event(person: SignedIn) -> None:
    ada = get_user_model()._default_manager.create_user(username="u", first_name="Ada", last_name="<Berg>")
    look(by=ada.pk, resource=f"Patient/{person.user.pk}", at=NOW - 7 * 366 * DAY)
    look(by=ada.pk, resource=f"Patient/{person.user.pk}", at=NOW - DAY)
    reveal(person.subject.uuid, by=STAFF, purpose="HPAYMT")
    reveal(person.subject.uuid, by=person.user.pk)
    page = person.client().get("/record/")
    assert lines(page) == [
        "2026-11-24|a member of staff|healthcare payment|birthdate|",
        f"2026-11-23|Ada <Berg>|treatment|Patient/{person.user.pk}|",
    ]
    assert "Ada &lt;Berg&gt;" in page.content.decode()
    assert STAFF not in page.content.decode()
    assert '<p id="since">2020-11-24T12:00:00+00:00</p>' in page.content.decode()
    (event,) = accounted()
    assert (event.actor, event.session) == (str(person.user.pk), str(person.session.pk))
    assert (event.subject, event.purpose) == (str(person.subject.uuid), "PATRQT")


def test_own_accesses_are_displayed_on_request(person: SignedIn) -> None:
    reveal(person.subject.uuid, by=person.user.pk)
    assert lines(person.client().get("/record/")) == []
    page = person.client().get("/record/?all=1")
    assert lines(page) == ["2026-11-24|you|treatment|birthdate|"]
    assert 'id="own"' in page.content.decode()


def test_project_overrides_the_names_of_actors(person: SignedIn) -> None:
    ada = get_user_model()._default_manager.create_user(username="u", first_name="Ada", last_name="Berg")
    for by in (ada.pk, STAFF, person.user.pk):
        reveal(person.subject.uuid, by=by)
    displayed = {line.split("|")[1] for line in lines(person.client().get("/named/?all=1"))}
    assert displayed == {"Dr. Ada Berg", "a former colleague", "you"}


def test_page_never_displays_another_person(sign_in: Callable[[], SignedIn]) -> None:
    person, other = sign_in(), sign_in()
    pk, uuid_ = other.user.pk, other.subject.uuid
    own = reveal(person.subject.uuid, by=STAFF, at=NOW - DAY)
    other_events = look(by=STAFF, count=9, resource=f"Patient/{pk}")
    assert len(lines(other.client().get("/mixed/"))) == 9
    client = person.client()
    for query in ("", f"?user={pk}", f"?subject={uuid_}", f"?resource=Patient/{pk}", f"?actor={STAFF}", f"?pk={pk}"):
        assert lines(client.get(f"/record/{query}")) == ["2026-11-23|a member of staff|treatment|birthdate|"]
    assert len(lines(client.get(f"/record/{pk}/"))) == 1
    # With the cursor at another person's event, the page still contains only the person's own record.
    assert lines(client.get(f"/record/?before={other_events[0]}"))[0].startswith("2026-11-23")
    assert lines(client.get(f"/record/?after={own}")) == []
    assert {event.subject for event in accounted()} == {str(person.subject.uuid), str(uuid_)}


def test_g5_page_does_not_show_that_disclosures_are_withheld(person: SignedIn) -> None:
    resource = f"Patient/{person.user.pk}"
    look(by=STAFF, resource=resource, at=NOW - DAY)
    without = person.client().get("/record/").content
    look(by=STAFF, count=5, resource=resource, purpose="HLEGAL")
    assert person.client().get("/record/").content != without
    suspension = AccountingSuspension(until=NOW + DAY, agency="Board of Health")
    fields: Any = {"reason": "Docket 26-117", "until": None, "suspension": suspension}
    place_hold(person.subject.uuid, **fields, origin=Origin(), now=NOW)
    assert person.client().get("/record/").content == without
    with clock.override_clock(lambda: NOW + timedelta(minutes=1)):
        assert person.client().get("/record/?all=1").content.count(b"<li>") == 1
    assert json.loads(accounted()[-1].detail)["withheld"] == 5


def test_cookie_of_one_user_with_the_token_of_another_is_refused(sign_in: Callable[[], SignedIn]) -> None:
    person, other = sign_in(), sign_in()
    look(by=STAFF, resource=f"Patient/{other.user.pk}")
    assert person.client().get(f"/anybody/?user={other.user.pk}").status_code == 401
    assert len(lines(other.client().get(f"/anybody/?user={other.user.pk}"))) == 1


@pytest.mark.parametrize("path", ["/record/", "/mixed/"])
def test_page_needs_an_oidc_session(path: str, person: SignedIn, settings: Any) -> None:
    anonymous, password = SecureClient(), SecureClient()
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, "django.contrib.auth.backends.ModelBackend"]
    password.force_login(person.user, backend="django.contrib.auth.backends.ModelBackend")
    for client in (anonymous, password):
        to_sign_in = client.get(path, headers=PAGE)
        assert (to_sign_in.status_code, to_sign_in["Location"]) == (302, f"/oidc/authenticate/?next={path}")
        script = client.get(path)
        assert (script.status_code, script.json()["code"]) == (401, "session_missing")
    assert accounted() == []
    assert person.client().get(path, headers=PAGE).status_code == 200
    assert len(accounted()) == 1


def test_page_can_require_a_step_up(person: SignedIn) -> None:
    assert person.client().get("/strong/").status_code == 401
    assert accounted() == []
    client = person.client()
    session = client.session
    session["phi_oidc_assurance"] = ["gold", None]
    session.save()
    assert client.get("/strong/").status_code == 200


@pytest.mark.parametrize("path", ["/record/", "/mixed/"])
def test_page_is_not_stored_by_caches(path: str, person: SignedIn) -> None:
    for page in (person.client().get(path), Client().get(path), person.client().post(path)):
        assert page["Cache-Control"] == "no-store"


def test_post_is_refused(person: SignedIn) -> None:
    assert person.client().post("/record/").status_code == 405
    assert accounted() == []


@pytest.mark.parametrize("path", ["/record/", "/mixed/"])
def test_page_without_the_audit_log_is_503(path: str, person: SignedIn) -> None:
    reveal(person.subject.uuid, by=STAFF)
    with audit_database_fails():
        page, script = person.client().get(path, headers=PAGE), person.client().get(path)
    assert (page.status_code, script.status_code) == (503, 503)
    assert script.json()["code"] == "audit_unavailable"
    assert "birthdate" not in page.content.decode()
    assert page["Cache-Control"] == script["Cache-Control"] == "no-store"
    assert len(lines(person.client().get(path))) == 1


def test_page_whose_event_cannot_be_written_is_503(person: SignedIn) -> None:
    reveal(person.subject.uuid, by=STAFF)

    def refuse(execute: Any, statement: str, *given: Any) -> Any:
        if statement.startswith("INSERT"):
            raise OperationalError("the disk is full")
        return execute(statement, *given)

    with connections["phi_audit"].execute_wrapper(refuse):
        assert person.client().get("/record/").status_code == 503


def test_page_with_an_unreadable_row_is_503(person: SignedIn) -> None:
    (one,) = look(by=STAFF, resource=f"Patient/{person.user.pk}")
    wrong = "infinity" if is_postgresql() else "2026-13-01 00:00:00"
    with without_triggers():
        sql(f"UPDATE {EVENT} SET occurred_at = %s WHERE id = %s", wrong, one)
    assert person.client().get("/record/").status_code == 503


def test_each_page_links_its_neighbours_and_records_an_event(person: SignedIn) -> None:
    look(by=STAFF, count=7, resource=f"Patient/{person.user.pk}")
    client, queries, counts = person.client(), [""], []
    for query in queries:
        page = client.get(f"/record/{query}")
        counts.append(len(lines(page)))
        queries += [way(page, "older")] if way(page, "older") else []
    assert counts == [3, 3, 1]
    assert len(accounted()) == 3
    back = client.get(f"/record/{way(page, 'newer')}")
    assert len(lines(back)) == 3
    assert (way(back, "newer"), way(back, "older")) != ("", "")
    with_own = client.get("/record/?all=1")
    assert re.fullmatch(r"\?before=[0-9a-f-]{36}&all=1", way(with_own, "older"))


@pytest.mark.parametrize("query", ["before=x", "after=1", f"before={uuid.UUID(int=1)}&after={uuid.UUID(int=2)}"])
def test_invalid_cursor_is_not_found(query: str, person: SignedIn) -> None:
    assert person.client().get(f"/record/?{query}").status_code == 404
    assert accounted() == []
    assert person.client().get(f"/record/?before={uuid.UUID(int=1)}").status_code == 200


def test_last_page_states_since_when_events_are_available(person: SignedIn) -> None:
    look(by=STAFF, resource=f"Patient/{person.user.pk}", at=NOW - 20 * DAY)
    look(by=STAFF, count=4, resource=f"Patient/{person.user.pk}", at=NOW - 10 * DAY)
    seal_now(at=NOW)
    client = person.client()
    assert 'id="begins"' not in client.get("/mixed/").content.decode()
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", AuditLeaf.objects.get(leaf_index=0).event_id)
    first = client.get("/record/")
    assert 'id="begins"' not in first.content.decode()
    last = client.get(f"/record/{way(first, 'older')}")
    assert '<p id="begins">2026-11-14T11:59:57' in last.content.decode()


def test_page_executes_as_many_queries_for_many_disclosures_as_for_few(person: SignedIn) -> None:
    client, counts = person.client(), []
    for _ in range(2):
        look(by=STAFF, count=5, resource=f"Patient/{person.user.pk}")
        reveal(person.subject.uuid, by=NURSE)
        client.get("/record/")
        with (
            CaptureQueriesContext(connections["default"]) as here,
            CaptureQueriesContext(connections["phi_audit"]) as there,
        ):
            client.get("/record/")
        counts.append((len(here), len(there)))
    assert counts[0] == counts[1]
    # The session and its user; the subjects; suspensions of the accounting; the names at that time and those of today;
    # the copy, in a transaction. The page; the event.
    assert counts[0] == (9, 2)


@pytest.mark.parametrize("url", ["record", "mixed", "strong", "named"])
def test_view_of_the_accounting_is_in_no_transaction_of_the_request(url: str) -> None:
    """A copy in that transaction could be rolled back after its event is committed."""
    view: Any = resolve(f"/{url}/").func
    assert view._non_atomic_requests == {"default"}


def test_copy_remains_if_the_response_of_an_atomic_request_fails(
    person: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    with pytest.raises(RuntimeError, match="after the accounting"):
        person.client().get("/failing/")
    assert (len(accounted()), AccountingCopy.objects.count()) == (1, 1)
