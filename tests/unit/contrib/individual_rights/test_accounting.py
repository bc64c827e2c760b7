"""The accounting of disclosures: complete, only of one person, and after its own event."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.events import Action, Origin, register_actions
from django_phi_oidc.audit.models import AuditEvent, AuditLeaf
from django_phi_oidc.audit.search import RowUnreadable
from django_phi_oidc.contrib.individual_rights import accounting
from django_phi_oidc.contrib.individual_rights.accounting import (
    Disclosure,
    DisclosureAccounting,
    create_accounting,
)
from django_phi_oidc.contrib.individual_rights.models import AccountingCopy
from django_phi_oidc.errors import AuditUnavailable
from tests.settings import key
from tests.support.audit_log import seal_now
from tests.support.audit_outage import audit_database_fails
from tests.support.audit_tampering import EVENT, is_postgresql, sql, without_triggers
from tests.support.claims_fixtures import NOW, Person
from tests.support.disclosure_events import DAY, NURSE, STAFF, look, resources_of, reveal
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ASKER = Origin(actor="9", session="s", client_ip="192.0.2.1")


def account_for(person: Person, **given: Any) -> DisclosureAccounting:
    asked: dict[str, Any] = {"resources": resources_of(person.user), "since": NOW - 30 * DAY, "include_own": False}
    return create_accounting(person.user, **{**asked, "origin": ASKER, "now": NOW, **given})


def ids(report: DisclosureAccounting) -> list[uuid.UUID]:
    return [item.id for item in report.list_all()]


def test_every_kind_of_disclosure_is_included_newest_first(person: Person) -> None:
    granted = look(by=STAFF, resource=f"Patient/{person.user.pk}", at=NOW - 3 * DAY)
    part = look(by=STAFF, resource=f"Chart/{person.user.pk}-1", purpose="HPAYMT", at=NOW - 2 * DAY)
    revealed = reveal(person.subject.uuid, by=NURSE, purpose="HOPERAT", at=NOW - DAY)
    exported = look(
        action=Action.SUBJECT_EXPORTED,
        subject=str(person.subject.uuid),
        resource=f"user/{person.user.pk}",
        purpose="PATRQT",
        detail={"claims": ["address", "birthdate"]},
    )
    rows = account_for(person).list_all()
    assert [row.id for row in rows] == [*exported, revealed, *part, *granted]
    values = [(row.actor, row.purpose_name, row.resource, row.claims, row.emergency) for row in rows]
    assert values == [
        ("", "patient requested", f"user/{person.user.pk}", ("address", "birthdate"), ""),
        (NURSE, "healthcare operations", "", ("birthdate",), ""),
        (STAFF, "healthcare payment", f"Chart/{person.user.pk}-1", (), ""),
        (STAFF, "treatment", f"Patient/{person.user.pk}", (), ""),
    ]
    assert [row.occurred_at for row in rows] == [NOW - n * DAY for n in range(4)]


def test_events_that_disclose_nothing_are_excluded(person: Person) -> None:
    own = f"Patient/{person.user.pk}"
    observed = look(by=STAFF, resource=own)
    look(by=STAFF, resource=own, action=Action.ACCESS_DENIED, outcome="failure")
    look(by=STAFF, resource=own, action=Action.HOLD_PLACED)
    reveal(person.subject.uuid, by=STAFF, outcome="failure", reason="claim_scrubbed")
    look(by=STAFF, subject=str(person.subject.uuid), action=Action.LOGIN_SUCCEEDED)
    assert ids(account_for(person)) == observed


def test_registered_disclosures_are_included(person: Person) -> None:
    register_actions({"records_test.printed": (), "records_test.archived": ()}, disclosures=["records_test.printed"])
    resource = f"Patient/{person.user.pk}"
    printed = look(by=STAFF, resource=resource, action="records_test.printed")
    look(by=STAFF, resource=resource, action="records_test.archived")
    look(by=STAFF, resource="Patient/another", action="records_test.printed")
    (row,) = account_for(person).get_page().rows
    assert ([row.id], row.action, row.resource) == (printed, "records_test.printed", resource)


@pytest.mark.parametrize(("claims", "shown"), [(["a", "b"], ("a", "b")), ([], ())])
def test_project_event_may_have_a_claims_detail(claims: Any, shown: tuple[str, ...], person: Person) -> None:
    register_actions({"records_test.sent": ["claims"]}, disclosures=["records_test.sent"])
    look(by=STAFF, resource=f"Patient/{person.user.pk}", action="records_test.sent", detail={"claims": claims})
    (row,) = account_for(person).get_page().rows
    assert row.claims == shown


def test_disclosures_of_another_person_are_excluded(make_person: Callable[..., Person]) -> None:
    person, other = make_person(), make_person()
    pk = person.user.pk
    own = look(by=STAFF, resource=f"Patient/{pk}")
    for resource in (f"Patient/{other.user.pk}", f"Patient/{pk}0", f"patient/{pk}", f"Patient/{pk}-1", f"Ward/{pk}"):
        look(by=STAFF, resource=resource)
    others = look(by=STAFF, resource=f"Patient/{other.user.pk}", at=NOW + DAY)
    other_reveals = reveal(other.subject.uuid, by=person.user.pk, at=NOW + 2 * DAY)
    # Of another type, and of no person.
    look(by=STAFF, subject=f"Patient/{pk}", action=Action.CLAIM_REVEALED)
    look(by=STAFF, resource=str(person.subject.uuid), action=Action.CLAIM_REVEALED)
    look(by=STAFF)
    assert ids(account_for(person)) == own
    assert ids(account_for(person, include_own=True)) == own
    assert ids(account_for(other))[:2] == [other_reveals, *others]


def test_all_subjects_of_an_account_are_included_except_former_ones(
    make_person: Callable[..., Person],
) -> None:
    person, former = make_person(), make_person()
    second = make_person(user=person.user, issuer="https://other.example.test")
    first_look = reveal(person.subject.uuid, by=STAFF)
    second_look = reveal(second.subject.uuid, by=STAFF, at=NOW + DAY)
    reveal(former.subject.uuid, by=STAFF)
    former.subject.delete()
    assert ids(account_for(person)) == [second_look, first_look]
    assert ids(account_for(former)) == []


def test_own_accesses_are_included_only_on_request(person: Person) -> None:
    others = reveal(person.subject.uuid, by=STAFF)
    own = reveal(person.subject.uuid, by=person.user.pk, purpose="PATRQT", at=NOW + DAY)
    assert ids(account_for(person)) == [others]
    report = account_for(person, include_own=True)
    assert ids(report) == [own, others]
    assert [row.is_own for row in report.get_page().rows] == [True, False]


def test_disclosures_before_the_period_are_excluded(person: Person) -> None:
    resource = f"Patient/{person.user.pk}"
    look(by=STAFF, resource=resource, at=NOW - timedelta(microseconds=1))
    then, later = look(by=STAFF, resource=resource, at=NOW), look(by=STAFF, resource=resource, at=NOW + DAY)
    assert ids(account_for(person, since=NOW)) == [*later, *then]
    assert ids(account_for(person, since=NOW + 2 * DAY)) == []


def test_disclosure_in_an_emergency_has_its_id(person: Person) -> None:
    resource, emergency = f"Patient/{person.user.pk}", str(uuid.uuid4())
    look(by=STAFF, resource=resource)
    look(by=STAFF, resource=resource, purpose="ETREAT", detail={"emergency": emergency}, at=NOW + DAY)
    rows = account_for(person).get_page().rows
    assert [(row.purpose_name, row.emergency) for row in rows] == [
        ("emergency treatment", emergency),
        ("treatment", ""),
    ]


def test_resource_pseudonyms_are_found_and_named_as_in_the_project(person: Person, settings: Any) -> None:
    resource = f"Patient/{person.user.pk}"
    plain = look(by=STAFF, resource=resource)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"resource_ids": "keyed"})
    keyed = look(by=STAFF, resource=resource, at=NOW + DAY)
    look(by=STAFF, resource="Patient/another")
    assert AuditEvent.objects.get(id=keyed[0]).resource != resource
    for mode in ("keyed", "plain"):
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"resource_ids": mode})
        rows = account_for(person).get_page().rows
        assert [(row.id, row.resource) for row in rows] == [(keyed[0], resource), (plain[0], resource)]


def test_resource_pseudonyms_are_found_after_a_change_of_the_mac_key(person: Person, settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"resource_ids": "keyed"})
    before = look(by=STAFF, resource=f"Patient/{person.user.pk}")
    rings = [key("a newer key"), *settings.PHI_OIDC["KEYS"]["audit_mac"]]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": rings})
    after = look(by=STAFF, resource=f"Patient/{person.user.pk}", at=NOW + DAY)
    assert ids(account_for(person)) == [*after, *before]
    # A key that still verifies older events, and so is the oldest one now.
    rings = [*rings, key("an older key")]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": rings})
    last = look(by=STAFF, resource=f"Patient/{person.user.pk}", at=NOW + 2 * DAY)
    assert ids(account_for(person)) == [*last, *after, *before]


def test_accounting_records_an_event_for_each_subject(make_person: Callable[..., Person]) -> None:
    person = make_person()
    second = make_person(user=person.user, issuer="https://other.example.test")
    look(by=STAFF, count=2, resource=f"Patient/{person.user.pk}")
    account_for(person).list_all()
    events = AuditEvent.objects.filter(action="subject.accounted").order_by("id")
    assert {event.subject for event in events} == {str(person.subject.uuid), str(second.subject.uuid)}
    for event in events:
        assert (event.outcome, event.actor, event.purpose) == ("success", "9", "PATRQT")
        assert event.resource == f"user/{person.user.pk}"
        assert json.loads(event.detail) == {
            "since": "2026-10-25T12:00:00+00:00",
            "count": 2,
            "sha256": AccountingCopy.objects.get().sha256,
        }
    assert len(ids(account_for(person))) == 2, "it is no look at the record itself"


def test_account_without_a_subject_has_an_accounting_of_its_resources() -> None:
    user = get_user_model()._default_manager.create_user(username="unlinked")
    observed = look(by=STAFF, resource=f"Patient/{user.pk}")
    exported = look(action=Action.SUBJECT_EXPORTED, resource=f"user/{user.pk}", at=NOW + DAY)
    look(by=STAFF, resource=f"user/{user.pk}", action=Action.SUBJECT_LINKED)
    report = create_accounting(
        user, resources=resources_of(user), since=NOW - DAY, include_own=False, origin=Origin(), now=NOW
    )
    assert ids(report) == [*exported, *observed]
    assert AuditEvent.objects.get(action="subject.accounted").subject == ""


def test_without_the_audit_log_there_is_no_accounting(person: Person) -> None:
    look(by=STAFF, resource=f"Patient/{person.user.pk}")
    report = account_for(person)
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        report.get_page()
    assert len(report.get_page().rows) == 1


@pytest.mark.parametrize("given", ["Patient/7", ["Patient/7", "Patient 7"], [7], ["Patient/"]])
def test_invalid_resources_are_refused_before_an_event_is_recorded(given: Any, person: Person) -> None:
    with pytest.raises(ImproperlyConfigured, match="PATIENT_RESOURCES"):
        account_for(person, resources=given)
    assert not AuditEvent.objects.filter(action="subject.accounted").exists()
    assert ids(account_for(person, resources=("Patient/7",))) == []


def test_pages_forward_and_back_have_each_disclosure_once_despite_new_events(person: Person) -> None:
    resource = f"Patient/{person.user.pk}"
    written = look(by=STAFF, count=25, resource=resource)
    written += [reveal(person.subject.uuid, by=STAFF, at=NOW + timedelta(seconds=n)) for n in range(1, 26)]
    report, observed = account_for(person), []
    page = report.get_page(size=20)
    observed += page.rows
    while page.older_key is not None:
        look(by=STAFF, count=5, resource=resource, at=NOW + DAY)
        page = report.get_page(before=page.older_key, size=20)
        observed += page.rows
    assert [row.id for row in observed] == written[::-1]
    back = list(page.rows)
    while page.newer_key is not None:
        page = report.get_page(after=page.newer_key, size=20)
        back = [*page.rows, *back]
    assert [row.id for row in back][-50:] == written[::-1]
    assert len({row.id for row in back}) == len(back) == 60


def test_many_resources_take_a_query_for_each_hundred(person: Person) -> None:
    names = [f"Observation/{number}" for number in range(260)]
    written = [
        look(by=STAFF, resource=names[number], at=NOW + timedelta(seconds=number))[0] for number in (3, 120, 259)
    ]
    report = account_for(person, resources=names)
    with CaptureQueriesContext(connections["phi_audit"]) as asked:
        rows = report.get_page(size=2).rows
    assert [row.id for row in rows] == [written[2], written[1]]
    # Each name and its pseudonyms under two keys, the account's own ones, and one subject. And the event.
    assert len(asked) == 8 + 1


def test_query_counts_do_not_grow_with_the_disclosures(make_person: Callable[..., Person]) -> None:
    person, trail, counts = make_person(), connections["phi_audit"], []
    account_for(person).list_all()
    for _ in range(2):
        with CaptureQueriesContext(connections["default"]) as here, CaptureQueriesContext(trail) as there:
            account_for(person).get_page()
        counts.append([len([item for item in queries if "SELECT" in item["sql"][:7]]) for queries in (here, there)])
        for number in range(20):
            reveal(person.subject.uuid, by=person.user.pk + 1 + number % 3)
        make_person(user=person.user, issuer="https://other.example.test")
    # Subjects and suspensions; recipients and accounts; the page.
    assert counts == [[2, 1], [4, 1]]


def test_accounts_without_a_stored_name_have_that_of_today(person: Person) -> None:
    users = get_user_model()._default_manager
    ada = users.create_user(username="u-1", first_name="Ada", last_name="Berg")
    nameless, deleted = users.create_user(username="u-2"), users.create_user(username="u-3", first_name="Gone")
    gone_pk = deleted.pk
    for by in (ada.pk, nameless.pk, gone_pk, "", "no key", "9" * 60, "-1"):
        reveal(person.subject.uuid, by=by)
    deleted.delete()
    names = {row.actor: row.recipient.name for row in account_for(person).list_all() if row.recipient.name}
    assert names == {str(ada.pk): "Ada Berg"}


def test_account_that_the_actor_acted_for_is_in_the_accounting_and_its_copy(person: Person) -> None:
    parent = get_user_model()._default_manager.create_user(username="u-1", first_name="Ada", last_name="Berg")
    reveal(person.subject.uuid, by=STAFF, origin=Origin(actor=STAFF, on_behalf_of=str(parent.pk)))
    reveal(person.subject.uuid, by=STAFF)
    rows = account_for(person).list_all()
    assert sorted((row.on_behalf_of, row.represented.name) for row in rows) == [("", ""), (str(parent.pk), "Ada Berg")]


def test_accounting_states_from_when_it_is_complete(person: Person) -> None:
    resource = f"Patient/{person.user.pk}"
    look(by=STAFF, resource=resource, at=NOW - 20 * DAY)
    stored = look(by=STAFF, resource=resource, at=NOW - 10 * DAY)
    seal_now(at=NOW)
    assert account_for(person).find_available_since() is None
    deleted = AuditLeaf.objects.get(leaf_index=0).event_id
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", deleted)
    report = account_for(person)
    assert (ids(report), report.find_available_since()) == (stored, NOW - 10 * DAY)
    assert account_for(person, since=NOW - 10 * DAY).find_available_since() is None


def test_unreadable_row_is_distinguished_from_an_unavailable_audit_log(person: Person) -> None:
    (one,) = look(by=STAFF, resource=f"Patient/{person.user.pk}")
    for detail in ("no JSON", "[]", "[" * 100_000):
        with without_triggers():
            sql(f"UPDATE {EVENT} SET detail = %s WHERE id = %s", detail, one)
        assert ids(account_for(person)) == [one]
    with without_triggers():
        wrong = "infinity" if is_postgresql() else "2026-13-01 00:00:00"
        sql(f"UPDATE {EVENT} SET occurred_at = %s WHERE id = %s", wrong, one)
    with pytest.raises(RowUnreadable):
        account_for(person).get_page()


@pytest.mark.parametrize(("now", "since"), [("2026-11-24", "2020-11-24"), ("2028-02-29", "2022-02-28")])
def test_accounting_starts_six_years_ago(now: str, since: str) -> None:
    moments = (datetime.fromisoformat(item).replace(tzinfo=UTC) for item in (now, since))
    assert accounting.get_accounting_start(next(moments)) == next(moments)


def test_unknown_purpose_is_displayed_as_its_code() -> None:
    values: dict[str, Any] = {"id": uuid.uuid4(), "occurred_at": NOW, "action": "", "actor": ""}
    row = Disclosure(**values, on_behalf_of="", is_own=False, purpose="OLD", resource="", claims=(), emergency="")
    assert row.purpose_name == "OLD"
