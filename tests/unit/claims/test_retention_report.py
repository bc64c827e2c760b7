"""The retention report and `phi_oidc scrub --report`: two SELECTs, no values."""

import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.retention import scrub_sessions
from django_phi_oidc.claims.retention_report import create_retention_report
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from tests.support.claims_fixtures import DAY, DECLARED, NOW, Person
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.retention_key_folder import use_retention_keys

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
SECOND = timedelta(seconds=1)
CANARY = "claim-canary-Bern-7c1f"


def populate(make_person: Callable[..., Person]) -> list[Person]:
    """Store an address and a birthdate for two persons, the second one a day later and on hold."""
    persons = [make_person(), make_person()]
    for number, person in enumerate(persons):
        person.store({"birthdate": "1990-05-17", "address": {"locality": CANARY}}, now=NOW + number * DAY)
    place_hold(persons[1].subject.uuid, reason="matter 7", until=None, origin=Origin(), now=NOW + DAY)
    return persons


def run(*options: str) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "scrub", *options, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_report_counts_claims_by_name_and_purpose(make_person: Callable[..., Person]) -> None:
    first, second = populate(make_person)
    scrub_sessions_of(second)
    report = create_retention_report(now=NOW + 2 * DAY)
    address, birthdate = report.claims
    assert (address.name, address.purpose, address.count, address.of_sessions) == ("address", "HOPERAT", 2, 0)
    assert (address.since, address.until) == (NOW, NOW + 2 * DAY)
    assert (address.overdue, address.overdue_since) == (1, NOW + DAY)
    assert (address.held, address.held_past_their_time) == (1, 1)
    assert (birthdate.name, birthdate.purpose, birthdate.count, birthdate.of_sessions) == ("birthdate", "TREAT", 2, 1)
    assert (birthdate.since, birthdate.until) == (NOW, NOW + DAY)
    assert (birthdate.overdue, birthdate.overdue_since, birthdate.held) == (0, None, 1)
    assert (report.holds, report.overdue) == (1, 1)
    first.store({"birthdate": "1990-05-17"}, now=NOW, declared=OTHER_PURPOSE)
    assert [(summary.name, summary.purpose) for summary in create_retention_report(now=NOW).claims] == [
        ("address", "HOPERAT"),
        ("birthdate", "HOPERAT"),
        ("birthdate", "TREAT"),
    ]


OTHER_PURPOSE = {"birthdate": {"purpose": "HOPERAT", "basis": "letters", "retention": "session"}}


def scrub_sessions_of(person: Person) -> None:
    """End the session of a person on hold: its claims expire and are preserved."""
    assert scrub_sessions([person.session_id], origin=Origin(), now=NOW + DAY) == 0


@pytest.mark.parametrize(
    ("after", "overdue", "is_late"),
    [
        (-SECOND, 0, False),
        (timedelta(0), 1, False),
        (timedelta(hours=1), 1, False),
        (timedelta(hours=1) + SECOND, 1, True),
    ],
)
def test_report_is_late_an_hour_after_expiry(person: Person, after: timedelta, overdue: int, is_late: bool) -> None:
    person.store({"address": "Bern"})
    report = create_retention_report(now=NOW + DAY + after)
    assert (report.overdue, report.is_late) == (overdue, is_late)


def test_report_of_held_claims_is_late_after_the_hold(person: Person) -> None:
    person.store({"address": "Bern"})
    until = NOW + 10 * DAY
    place_hold(person.subject.uuid, reason="matter 7", until=until, origin=Origin(), now=NOW)
    during, after = create_retention_report(now=until - SECOND), create_retention_report(now=until)
    assert (during.overdue, during.is_late, during.holds, during.claims[0].held_past_their_time) == (0, False, 1, 1)
    assert (after.overdue, after.is_late, after.holds, after.claims[0].held_past_their_time) == (1, True, 0, 0)


@pytest.mark.parametrize(
    ("retention", "limit"), [(timedelta(hours=2), timedelta(hours=2)), (None, DAY), ("session", timedelta(hours=8))]
)
def test_a6_report_counts_claims_past_a_shortened_retention(
    person: Person, settings: Any, retention: Any, limit: timedelta
) -> None:
    long = {"address": {**DECLARED["address"], "retention": 365 * DAY}}
    person.store({"address": "Bern"}, declared=long)
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": long}
    assert create_retention_report(now=NOW + 2 * DAY).overdue == 0
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {"address": {**DECLARED["address"], "retention": retention}}}
    before, after = create_retention_report(now=NOW + limit - SECOND), create_retention_report(now=NOW + limit)
    assert (before.overdue, before.overdue_since) == (0, None)
    assert (after.overdue, after.overdue_since) == (1, NOW + limit)
    assert create_retention_report(now=NOW + limit + timedelta(hours=2)).is_late


def test_report_takes_two_selects_and_reads_no_value(
    make_person: Callable[..., Person],
) -> None:
    for _ in range(2):
        populate(make_person)
        with CaptureQueriesContext(connection) as queries:
            create_retention_report(now=NOW)
        assert len(queries) == 2
        assert not any('"value"' in query["sql"] for query in queries)


@pytest.fixture
def _retention_keys(settings: Any, tmp_path: Path) -> None:
    use_retention_keys(settings, tmp_path)


@pytest.mark.usefixtures("_retention_keys")
def test_command_reports_and_erases_nothing(make_person: Callable[..., Person]) -> None:
    populate(make_person)
    with clock.override_clock(lambda: NOW + DAY):
        lines = run("--report").splitlines()
        report = json.loads(run("--report", "--json"))
    assert lines == [
        "address (HOPERAT): 2, since 2026-11-24T12:00:00+00:00, until 2026-11-26T12:00:00+00:00; 1 overdue, the first"
        " since 2026-11-25T12:00:00+00:00; 1 kept by a legal hold, 0 of them past their time",
        "birthdate (TREAT): 2, since 2026-11-24T12:00:00+00:00, until their sessions end; 2 of live sessions; 1 kept by"
        " a legal hold, 0 of them past their time",
        "4 claims are stored: 2 of live sessions, 1 overdue, 2 kept by a legal hold.",
        "1 legal holds are active.",
        "5 retention keys of days and holds exist, the oldest of 2026-11-24; 1 belong to legal holds.",
        "0 retention keys of erased persons are not destroyed yet.",
    ]
    assert report["claims"][1] == {
        "name": "birthdate",
        "purpose": "TREAT",
        "count": 2,
        "of_sessions": 2,
        "since": "2026-11-24T12:00:00+00:00",
        "until": None,
        "overdue": 0,
        "overdue_since": None,
        "held": 1,
        "held_past_their_time": 0,
    }
    assert (report["at"], report["holds"]) == ("2026-11-25T12:00:00+00:00", 1)
    assert report["retention_keys"] == {
        "count": 5,
        "oldest": "2026-11-24",
        "of_holds": 1,
        "of_erased_persons": 0,
    }
    assert StoredClaim.objects.count() == 4


def test_command_prints_the_report_and_fails_if_claims_are_late(person: Person) -> None:
    person.store({"address": "Bern"})
    out = io.StringIO()
    with clock.override_clock(lambda: NOW + 2 * DAY), pytest.raises(CommandError, match="1 claims are overdue"):
        call_command("phi_oidc", "scrub", "--report", stdout=out, stderr=io.StringIO())
    assert "1 overdue, the first since 2026-11-25T12:00:00+00:00" in out.getvalue()
    with clock.override_clock(lambda: NOW + 2 * DAY):
        run()
        assert run("--report") == "No claims are stored.\n"


def test_command_fails_without_the_retention_keys(person: Person, settings: Any, tmp_path: Path) -> None:
    person.store({"address": "Bern"})
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": tmp_path / "nowhere"})
    out = io.StringIO()
    with clock.override_clock(lambda: NOW), pytest.raises(CommandError, match="folder of the retention keys"):
        call_command("phi_oidc", "scrub", "--report", stdout=out, stderr=io.StringIO())
    assert "1 claims are stored" in out.getvalue()


def test_command_refuses_conflicting_options() -> None:
    with pytest.raises(CommandError, match="not allowed with"):
        run("--report", "--user", "1")
