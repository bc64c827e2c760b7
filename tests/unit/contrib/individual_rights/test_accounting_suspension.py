"""While a legal hold suspends the accounting, the person does not learn of the disclosures to the agency."""

import io
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.individual_rights.accounting import create_accounting
from django_phi_oidc.contrib.individual_rights.export import export_person
from django_phi_oidc.contrib.legal_holds.accounting_suspensions import AccountingSuspension
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from tests.support.claims_fixtures import NOW, Person
from tests.support.disclosure_events import DAY, RESOURCES, STAFF, look, resources_of, reveal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
END = NOW + 30 * DAY


def suspend(person: Person, *, hold_until: Any = None, **given: Any) -> LegalHold:
    suspension = AccountingSuspension(**{"until": END, "agency": "Board of Health", **given})
    fields: Any = {"reason": "Docket 26-117", "until": hold_until, "suspension": suspension}
    return place_hold(person.subject.uuid, **fields, origin=Origin(actor="7"), now=NOW)


def purposes(person: Person, *, now: Any = NOW) -> list[str]:
    resources = resources_of(person.user)
    options: Any = {"resources": resources, "since": NOW - 30 * DAY, "include_own": False, "origin": Origin()}
    report = create_accounting(person.user, **options, now=now)
    paged = [row.purpose for row in report.get_page().rows]
    assert paged == [row.purpose for row in report.list_all()]
    return paged


def last_detail(action: Action) -> dict[str, Any]:
    detail: dict[str, Any] = json.loads(AuditEvent.objects.filter(action=action).order_by("-id")[0].detail)
    return detail


@pytest.fixture
def looked_at(person: Person) -> Person:
    """A person whose record was read for treatment, as ordered by a court, and for the government."""
    resource = f"Patient/{person.user.pk}"
    look(by=STAFF, resource=resource, at=NOW - 3 * DAY)
    look(by=STAFF, resource=resource, purpose="HLEGAL", at=NOW - 2 * DAY)
    reveal(person.subject.uuid, by=STAFF, purpose="HLEGAL", at=NOW - DAY)
    look(by=STAFF, resource=resource, purpose="GOV")
    return person


def test_g5_disclosures_to_the_agency_are_left_out_until_the_end(looked_at: Person) -> None:
    everything = ["GOV", "HLEGAL", "HLEGAL", "TREAT"]
    assert purposes(looked_at) == everything
    suspend(looked_at)
    assert purposes(looked_at) == ["GOV", "TREAT"]
    assert purposes(looked_at, now=END - timedelta(seconds=1)) == ["GOV", "TREAT"]
    assert purposes(looked_at, now=END) == everything


def test_g5_suspension_covers_its_purposes_and_its_person_only(
    looked_at: Person, make_person: Callable[..., Person]
) -> None:
    other = make_person()
    suspend(other)
    assert purposes(looked_at) == ["GOV", "HLEGAL", "HLEGAL", "TREAT"]
    suspend(looked_at, purposes=["GOV"])
    assert purposes(looked_at) == ["HLEGAL", "HLEGAL", "TREAT"]
    # The other link of the same account.
    suspend(make_person(user=looked_at.user, issuer="https://other.example.test"))
    assert purposes(looked_at) == ["TREAT"]


def test_g5_hold_without_a_suspension_leaves_out_nothing(looked_at: Person) -> None:
    place_hold(looked_at.subject.uuid, reason="Docket 26-117", until=None, origin=Origin(), now=NOW)
    assert purposes(looked_at) == ["GOV", "HLEGAL", "HLEGAL", "TREAT"]


def test_g5_release_of_the_hold_lifts_the_suspension(looked_at: Person) -> None:
    hold = suspend(looked_at)
    release_hold(hold.pk, origin=Origin(actor="8"), now=NOW)
    assert purposes(looked_at) == ["GOV", "HLEGAL", "HLEGAL", "TREAT"]
    placed = {"until": "", "suspended_until": END.isoformat(), "purposes": ["HLEGAL"], "statement": "written"}
    assert last_detail(Action.HOLD_PLACED) == placed
    assert last_detail(Action.HOLD_RELEASED) == {"suspended_until": END.isoformat()}


def test_g5_purpose_changed_in_the_database_hides_no_other_disclosure(looked_at: Person) -> None:
    hold = suspend(looked_at)
    LegalHold.objects.filter(pk=hold.pk).update(suspended_purposes=["TREAT", "GOV"])
    assert purposes(looked_at) == ["HLEGAL", "HLEGAL", "TREAT"]


def test_g5_event_of_an_accounting_names_what_was_withheld(looked_at: Person) -> None:
    purposes(looked_at)
    assert "withheld" not in last_detail(Action.SUBJECT_ACCOUNTED)
    suspend(looked_at)
    purposes(looked_at, now=NOW + timedelta(seconds=1))
    detail = last_detail(Action.SUBJECT_ACCOUNTED)
    assert (detail["count"], detail["withheld"], detail["suspended_until"]) == (2, 2, END.isoformat())


def run_accounting(person: Person, *words: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    with clock.override_clock(lambda: NOW):
        call_command("phi_oidc", "subject", "accounting", person.user.get_username(), *words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_g5_command_informs_staff_apart_from_the_list(form: list[str], looked_at: Person, settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PATIENT_RESOURCES": RESOURCES}
    before, nothing = run_accounting(looked_at, *form)
    assert ("HLEGAL" in before, nothing) == (True, "")
    suspend(looked_at)
    listed, note = run_accounting(looked_at, *form)
    assert "HLEGAL" not in listed
    assert "withheld" not in listed
    assert "TREAT" in listed
    assert "2 disclosures for HLEGAL are withheld" in note
    assert END.isoformat(timespec="seconds") in note


def export(person: Person, *, purpose: str = "PATRQT", now: Any = NOW) -> Any:
    options: Any = {"claim_declarations": conf.claims(), "origin": Origin(actor="7"), "purpose": purpose, "now": now}
    return export_person(person.user, [person.subject], **options)


def test_g5_export_shows_neither_the_disclosures_nor_the_hold(looked_at: Person) -> None:
    looked_at.store({"address": "Bern"})
    suspend(looked_at)
    (subject,) = export(looked_at).document["subjects"]
    assert subject["holds"] == []
    assert [claim["held_until"] for claim in subject["claims"]] == [None]
    actions = {event["action"] for event in subject["events"]}
    assert ("hold.placed" in actions, "login.succeeded" in actions) == (False, True)
    assert "HLEGAL" not in json.dumps(subject)
    assert export(looked_at).withheld_count == 2
    assert last_detail(Action.SUBJECT_EXPORTED)["suspended_until"] == END.isoformat()
    # What the agency gets, and what the person gets afterwards.
    for complete in (export(looked_at, purpose="HLEGAL"), export(looked_at, now=END)):
        (subject,) = complete.document["subjects"]
        assert len(subject["holds"]) == 1
        assert {"hold.placed", "claim.revealed"} <= {event["action"] for event in subject["events"]}
        assert complete.withheld_count == 0


def test_g5_export_shows_another_hold_during_a_suspension(looked_at: Person) -> None:
    looked_at.store({"address": "Bern"})
    suspend(looked_at)
    place_hold(looked_at.subject.uuid, reason="Docket 26-118", until=NOW + DAY, origin=Origin(), now=NOW)
    (subject,) = export(looked_at).document["subjects"]
    assert [hold["until"] for hold in subject["holds"]] == ["2026-11-25T12:00:00+00:00"]
    assert [claim["held_until"] for claim in subject["claims"]] == ["2026-11-25T12:00:00+00:00"]
    assert [event["action"] for event in subject["events"]].count("hold.placed") == 1


def test_g5_export_does_not_show_the_release_of_a_hold_whose_suspension_had_ended(looked_at: Person) -> None:
    oral = suspend(looked_at, oral_statement_at=NOW)
    later = {"origin": Origin(actor="7"), "reason": "Docket 26-117", "until": None}
    written = AccountingSuspension(until=NOW + 90 * DAY, agency="Board of Health")
    place_hold(looked_at.subject.uuid, suspension=written, now=NOW + 20 * DAY, **later)  # type: ignore[arg-type]
    release_hold(oral.pk, origin=Origin(actor="8"), now=NOW + 40 * DAY)
    assert last_detail(Action.HOLD_RELEASED) == {"suspended_until": END.isoformat()}
    (subject,) = export(looked_at, now=NOW + 41 * DAY).document["subjects"]
    assert (subject["holds"], [e["action"] for e in subject["events"] if "hold" in e["action"]]) == ([], [])
    other = place_hold(looked_at.subject.uuid, now=NOW + 42 * DAY, **later)  # type: ignore[arg-type]
    release_hold(other.pk, origin=Origin(actor="8"), now=NOW + 43 * DAY)
    (subject,) = export(looked_at, now=NOW + 44 * DAY).document["subjects"]
    assert [e["action"] for e in subject["events"] if "hold" in e["action"]] == ["hold.placed", "hold.released"]


def test_g5_export_leaves_out_claims_that_only_the_suspending_hold_preserves(person: Person) -> None:
    suspension = AccountingSuspension(until=NOW + 90 * DAY, agency="Board of Health")
    person.store({"address": "Bern"})
    fields: Any = {"reason": "Docket 26-117", "until": None, "origin": Origin(actor="7"), "now": NOW}
    place_hold(person.subject.uuid, suspension=suspension, **fields)
    person.store({"address": "Thun"}, now=NOW + 10 * DAY)

    def exported(now: Any, **given: Any) -> tuple[list[str], list[str], int]:
        result = export(person, now=now, **given)
        (subject,) = result.document["subjects"]
        values = [claim["value"] for claim in subject["claims"]]
        return values, last_detail(Action.SUBJECT_EXPORTED)["claims"], result.withheld_count

    # The event of the hold is withheld, too.
    assert exported(NOW + 10 * DAY) == (["Thun"], ["address"], 2)
    assert exported(NOW + 41 * DAY) == ([], [], 3)
    assert exported(NOW + 42 * DAY, purpose="HLEGAL") == (["Bern", "Thun"], ["address"], 0)
    other = place_hold(person.subject.uuid, **{**fields, "now": NOW + 43 * DAY})
    # The export for the agency is withheld as well.
    assert exported(NOW + 44 * DAY) == (["Bern", "Thun"], ["address"], 2)
    release_hold(other.pk, origin=Origin(), now=NOW + 45 * DAY)
    assert exported(NOW + 46 * DAY) == ([], [], 4)
    assert exported(NOW + 90 * DAY)[0] == ["Bern", "Thun"]
