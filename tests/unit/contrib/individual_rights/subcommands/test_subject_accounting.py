"""`manage.py phi_oidc subject accounting`, run as an operator does."""

import csv
import io
import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, register_actions
from django_phi_oidc.audit.models import AuditEvent, AuditLeaf
from tests.support.audit_log import seal_now
from tests.support.audit_outage import audit_database_fails
from tests.support.audit_tampering import EVENT, is_postgresql, sql, without_triggers
from tests.support.claims_fixtures import NOW, Person
from tests.support.disclosure_events import DAY, RESOURCES, STAFF, look, reveal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
YEAR = 366 * DAY


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    options = {**django_settings.PHI_OIDC, "PATIENT_RESOURCES": RESOURCES}
    with override_settings(PHI_OIDC=options), clock.override_clock(lambda: NOW):
        yield


def run(*words: object, out: io.StringIO | None = None) -> str:
    out = out or io.StringIO()
    named = [f"pk:{word}" if isinstance(word, int) else str(word) for word in words]
    call_command("phi_oidc", "subject", "accounting", *named, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def named(**names: str) -> Any:
    return get_user_model()._default_manager.create_user(username=uuid.uuid4().hex, **names)


def accounted() -> int:
    return AuditEvent.objects.filter(action="subject.accounted").count()


def test_table_shows_who_accessed_what_when_and_why(person: Person) -> None:
    pk, ada, nameless = person.user.pk, named(first_name="Ada", last_name="Berg"), named()
    look(by=ada.pk, resource=f"Patient/{pk}", at=NOW - 3 * DAY)
    reveal(person.subject.uuid, by=nameless.pk, at=NOW - 2 * DAY, purpose="HPAYMT")
    export = {
        "action": Action.SUBJECT_EXPORTED,
        "subject": str(person.subject.uuid),
        "resource": f"user/{pk}",
        "purpose": "PATRQT",
        "detail": {"claims": ["address", "birthdate"]},
    }
    # A command may name the person's account, and is still not the person.
    for hours, by in enumerate(
        ("", "os:amina@portal-1", f"os:amina@portal-1;as={ada.pk}", f"os:amina@portal-1;as={pk}")
    ):
        look(by=by, at=NOW - DAY + timedelta(hours=hours), **export)
    reveal(person.subject.uuid, by=pk, purpose="PATRQT")
    exported = "  patient requested (PATRQT)  export: address birthdate"
    assert run(pk).splitlines() == [
        f"2026-11-23T15:00:00+00:00  a command on the server (os:amina@portal-1;as={pk}){exported}",
        f"2026-11-23T14:00:00+00:00  Ada Berg (os:amina@portal-1;as={ada.pk}){exported}",
        f"2026-11-23T13:00:00+00:00  a command on the server (os:amina@portal-1){exported}",
        f"2026-11-23T12:00:00+00:00  the system{exported}",
        f"2026-11-22T12:00:00+00:00  a member of staff ({nameless.pk})  healthcare payment (HPAYMT)  birthdate",
        f"2026-11-21T12:00:00+00:00  Ada Berg ({ada.pk})  treatment (TREAT)  Patient/{pk}",
    ]
    assert run(pk, "--all").splitlines()[0] == (
        "2026-11-24T12:00:00+00:00  the person  patient requested (PATRQT)  birthdate"
    )
    assert accounted() == 2


def test_emergency_is_expected_and_names_are_escaped(person: Person) -> None:
    by, emergency = named(first_name="\x1b[2JAda", last_name="\u202eBerg"), uuid.uuid4()
    look(by=by.pk, resource=f"Patient/{person.user.pk}", purpose="ETREAT", detail={"emergency": str(emergency)})
    (line,) = run(person.user.pk).splitlines()
    assert line.endswith(f"  emergency treatment (ETREAT)  Patient/{person.user.pk}  emergency {emergency}")
    assert line.isascii()


def test_action_of_the_project_is_expected(person: Person) -> None:
    register_actions({"records_test.printed": ()}, disclosures=["records_test.printed"])
    look(by=STAFF, resource=f"Patient/{person.user.pk}", action="records_test.printed")
    assert run(person.user.pk).endswith(f"  treatment (TREAT)  records_test.printed: Patient/{person.user.pk}\n")


def test_json_is_one_object_per_line(person: Person) -> None:
    by = named(first_name="Zoë", last_name="Berg")
    reveal(person.subject.uuid, by=by.pk, at=NOW - DAY)
    (granted,) = look(by=STAFF, resource=f"Chart/{person.user.pk}-1")
    first, second = map(json.loads, run(person.user.pk, "--json").splitlines())
    assert first == {
        "occurred_at": "2026-11-24T12:00:00+00:00",
        "actor": STAFF,
        "name": "",
        "roles": [],
        "own": False,
        "on_behalf_of": "",
        "on_behalf_of_name": "",
        "purpose": "TREAT",
        "purpose_name": "treatment",
        "action": "access.granted",
        "resource": f"Chart/{person.user.pk}-1",
        "claims": [],
        "emergency": "",
        "event": str(granted),
    }
    assert (second["name"], second["claims"], second["resource"]) == ("Zoë Berg", ["birthdate"], "")


@pytest.mark.parametrize("sign", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_csv_has_no_formulas(sign: str, person: Person) -> None:
    # White space around names is stripped.
    by = named(first_name=sign)
    reveal(person.subject.uuid, by=by.pk, claim=sign)
    reveal(person.subject.uuid, by=person.user.pk, at=NOW - DAY)
    first, second = csv.DictReader(io.StringIO(run(person.user.pk, "--csv", "--all"), newline=""))
    expected = sign if sign.isprintable() else sign.strip()
    assert (first["name"], first["claims"]) == (f"'{expected}", f"'{expected}")
    assert (first["occurred_at"], first["purpose_name"], first["own"]) == (
        "2026-11-24T12:00:00+00:00",
        "treatment",
        "",
    )
    assert (second["own"], second["name"], second["claims"]) == ("yes", "", "birthdate")


def test_empty_csv_has_its_header(person: Person) -> None:
    assert run(person.user.pk, "--csv").strip() == (
        "occurred_at,actor,name,roles,own,on_behalf_of,on_behalf_of_name,purpose,purpose_name,action,resource,claims,"
        "emergency,event"
    )
    assert run(person.user.pk) == run(person.user.pk, "--json") == ""


@pytest.mark.parametrize(
    ("since", "count"),
    [
        ((), 4),
        (("--since", "2"), 2),
        (("--since", "0"), 1),
        (("--since", "2026-11-23"), 2),
        (("--since", "2026-11-23T13:00:00+01:00"), 2),
        (("--since", "2026-11-23T13:00:01+01:00"), 1),
        (("--since", "99999"), 5),
        (("--since", "0001-01-01T00:00+14:00"), 5),
    ],
)
def test_since_is_a_date_or_a_number_of_days(since: tuple[str, ...], count: int, person: Person) -> None:
    for at in (NOW, NOW - DAY, NOW - 3 * DAY, NOW - 5 * YEAR, NOW - 7 * YEAR):
        look(by=STAFF, resource=f"Patient/{person.user.pk}", at=at)
    assert len(run(person.user.pk, *since).splitlines()) == count


@pytest.mark.parametrize("since", ["yesterday", "-1", "1000000", "2026-13-01", "١"])
def test_invalid_since_is_refused(since: str, person: Person) -> None:
    with pytest.raises(CommandError, match="--since"):
        run(person.user.pk, "--since", since)
    assert accounted() == 0


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["pk:0"], "There is no user pk:0"),
        (["x"], "no user x"),
        (["42"], "no user 42. If this is a primary key, write pk:42."),
        ([], "required"),
        (["1", "--csv", "--json"], "Choose --csv or --json"),
    ],
)
def test_unknown_user_and_two_formats_are_errors(words: list[str], fault: str) -> None:
    with pytest.raises(CommandError, match=fault):
        run(*words)
    assert accounted() == 0


def test_nothing_is_listed_without_the_audit_log(person: Person) -> None:
    reveal(person.subject.uuid, by=STAFF)
    out = io.StringIO()
    with audit_database_fails(), pytest.raises(CommandError, match="Nothing was listed"):
        run(person.user.pk, "--csv", out=out)
    assert out.getvalue() == ""
    assert len(run(person.user.pk).splitlines()) == 1


def test_invalid_resources_are_an_error(person: Person) -> None:
    options = {**django_settings.PHI_OIDC, "PATIENT_RESOURCES": "tests.support.disclosure_events.words_of"}
    with (
        override_settings(PHI_OIDC=options),
        pytest.raises(CommandError, match=r"Nothing was listed.*PATIENT_RESOURCES"),
    ):
        run(person.user.pk)
    assert accounted() == 0


def test_status_is_1_if_older_events_are_only_in_archives(person: Person) -> None:
    for at in (NOW - 20 * DAY, NOW - 10 * DAY):
        look(by=STAFF, resource=f"Patient/{person.user.pk}", at=at)
    seal_now(at=NOW)
    assert len(run(person.user.pk).splitlines()) == 2
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", AuditLeaf.objects.get(leaf_index=0).event_id)
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"before 2026-11-14T12:00:00\+00:00 are in archives"):
        run(person.user.pk, out=out)
    assert len(out.getvalue().splitlines()) == 1
    assert len(run(person.user.pk, "--since", "10").splitlines()) == 1


def test_status_is_1_if_a_row_is_no_longer_a_valid_event(person: Person) -> None:
    reveal(person.subject.uuid, by=STAFF)
    with without_triggers():
        wrong = "infinity" if is_postgresql() else "2026-13-01 00:00:00"
        sql(f"UPDATE {EVENT} SET occurred_at = %s", wrong)
    with pytest.raises(CommandError, match="Nothing was listed"):
        run(person.user.pk)


def test_warning_says_if_the_resources_of_patients_are_not_declared(person: Person) -> None:
    def warn() -> str:
        err = io.StringIO()
        call_command("phi_oidc", "subject", "accounting", f"pk:{person.user.pk}", stdout=io.StringIO(), stderr=err)
        return err.getvalue()

    assert "PATIENT_RESOURCES" not in warn()
    options = {name: value for name, value in django_settings.PHI_OIDC.items() if name != "PATIENT_RESOURCES"}
    with override_settings(PHI_OIDC=options):
        assert "PATIENT_RESOURCES is not set" in warn()
