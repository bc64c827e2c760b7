"""`manage.py phi_oidc hold`, run as an operator does."""

import io
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin, parse_event
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.audit.operators import build_operator_actor
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.retention import scrub_due_claims
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from tests.support.claims_fixtures import DAY, NOW, Person

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
REASON = "court of Bern, 4 C 17"


@pytest.fixture(autouse=True)
def _at_noon() -> Any:
    with clock.override_clock(lambda: NOW):
        yield


def run(*words: object) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "hold", *map(str, words), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def listed(*words: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("list", "--json", *words).splitlines()]


def recorded(action: str) -> list[tuple[str, str, str]]:
    events = [parse_event(row.event).event for row in AuditOutbox.objects.order_by("id")]
    return [(event.subject, event.resource, event.detail) for event in events if event.action == action]


def test_hold_keeps_claims_until_release_and_its_reason_is_not_in_the_audit_log() -> None:
    person = Person()
    person.store({"address": "Bern"})
    placed = run("place", person.subject.uuid, "--reason", REASON)
    hold = LegalHold.objects.get()
    assert placed == f"Hold {hold.pk} keeps the data of subject {person.subject.uuid}.\n"
    assert (hold.subject, hold.reason, hold.placed_at, hold.placed_by) == (
        person.subject,
        REASON,
        NOW,
        build_operator_actor(),
    )
    assert scrub_due_claims(now=NOW + 2 * DAY) == 0
    assert run("release", hold.pk) == f"Hold {hold.pk} was released.\n"
    assert scrub_due_claims(now=NOW + 2 * DAY) == 1
    resource = f"LegalHold/{hold.pk}"
    assert recorded("hold.placed") == [(str(person.subject.uuid), resource, '{"until":""}')]
    assert recorded("hold.released") == [(str(person.subject.uuid), resource, "{}")]


@pytest.mark.parametrize(
    ("until", "expected"),
    [("2026-11-25", "2026-11-25T00:00:00+00:00"), ("2026-11-24T16:05:00+01:00", "2026-11-24T15:05:00+00:00")],
)
def test_hold_with_an_end_time_ends_then(until: str, expected: str) -> None:
    person = Person()
    run("place", person.subject.uuid, "--reason", REASON, "--until", until)
    (hold,) = listed()
    assert (hold["until"], hold["lasts"]) == (expected, True)
    ends = LegalHold.objects.get().until
    assert ends is not None
    with clock.override_clock(lambda: ends):
        assert listed() == []
        assert [(hold["until"], hold["lasts"]) for hold in listed("--all")] == [(expected, False)]


SUSPENDING = ["--reason", REASON, "--suspend-accounting-until", "2026-12-20", "--agency", "Board of Health"]


def test_g5_hold_suspends_the_accounting() -> None:
    person = Person()
    purposes = ["--purpose", "HLEGAL", "--purpose", "FRAUD"]
    run("place", person.subject.uuid, *SUSPENDING, *purposes, "--oral-statement", "2026-11-24T11:00Z")
    (hold,) = listed()
    assert (hold["suspended_until"], hold["suspended_purposes"]) == ("2026-12-20T00:00:00+00:00", ["FRAUD", "HLEGAL"])
    assert (hold["agency"], hold["oral_statement_at"]) == ("Board of Health", "2026-11-24T11:00:00+00:00")
    assert (
        "accounting of FRAUD HLEGAL suspended until 2026-12-20T00:00:00+00:00 (oral statement of Board of Health): "
        in run("list")
    )
    ((_, _, detail),) = recorded("hold.placed")
    assert json.loads(detail) == {
        "until": "",
        "suspended_until": "2026-12-20T00:00:00+00:00",
        "purposes": ["FRAUD", "HLEGAL"],
        "statement": "oral",
    }


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--agency", " "], "Name the agency"),
        (["--purpose", "TREAT"], "there is no suspendable purpose"),
        (["--oral-statement", "2026-11-19T23:59Z"], "at most 30 days"),
        (["--until", "2026-12-19"], "ends after the hold"),
    ],
)
def test_g5_invalid_suspension_is_refused(words: list[str], fault: str) -> None:
    person = Person()
    with pytest.raises(CommandError, match=fault):
        run("place", person.subject.uuid, *SUSPENDING, *words)
    assert not LegalHold.objects.exists()
    run("place", person.subject.uuid, *SUSPENDING)
    assert [hold["suspended_purposes"] for hold in listed()] == [["HLEGAL"]]


@pytest.mark.parametrize("word", ["--agency=Board of Health", "--purpose=HLEGAL", "--oral-statement=2026-11-24"])
def test_g5_suspension_without_an_end_is_refused(word: str) -> None:
    person = Person()
    with pytest.raises(CommandError, match="needs --suspend-accounting-until"):
        run("place", person.subject.uuid, "--reason", REASON, word)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--reason", "  "], "needs a reason"),
        ([], "required: --reason"),
        (["--reason", "x" * 256], "255 characters"),
        (["--reason", REASON, "--until", "2026-11-24T12:00:00Z"], "is in the past"),
        (["--reason", REASON, "--until", "soon"], "a time is written as"),
    ],
)
def test_invalid_hold_is_refused(words: list[str], fault: str) -> None:
    person = Person()
    with pytest.raises(CommandError, match=fault):
        run("place", person.subject.uuid, *words)
    assert not LegalHold.objects.exists()
    run("place", person.subject.uuid, "--reason", "x" * 255)
    assert LegalHold.objects.count() == 1


def test_hold_on_an_unknown_person_is_an_error() -> None:
    Person()
    with pytest.raises(CommandError, match="There is no subject"):
        run("place", uuid.uuid4(), "--reason", REASON)
    assert not LegalHold.objects.exists()


def test_release_of_an_unknown_or_released_hold_is_an_error() -> None:
    person = Person()
    hold = place_hold(person.subject.uuid, reason=REASON, until=None, origin=Origin(), now=NOW)
    with pytest.raises(CommandError, match="There is no hold"):
        run("release", uuid.uuid4())
    run("release", hold.pk)
    with pytest.raises(CommandError, match="was released before"):
        run("release", hold.pk)
    assert len(recorded("hold.released")) == 1


def test_list_shows_person_reason_and_end() -> None:
    assert run("list") == "There are no holds.\n"
    assert run("list", "--json") == ""
    first, second = Person(), Person()
    moments = [NOW + timedelta(seconds=n) for n in range(3)]
    holds = [
        place_hold(person.subject.uuid, reason=reason, until=until, origin=Origin(actor="7"), now=now)
        for person, reason, until, now in (
            (first, REASON, None, moments[0]),
            (second, "\x1b[2J", NOW + DAY, moments[1]),
            (first, "another", None, moments[2]),
        )
    ]
    run("release", holds[2].pk)
    lines = run("list").splitlines()
    assert lines[0] == (
        f"{holds[0].pk}  {first.subject.uuid}  placed 2026-11-24T12:00:00+00:00, until it is released: {REASON}"
    )
    assert lines[1].endswith(r"until 2026-11-25T12:00:00+00:00: '\x1b[2J'"), "control characters are escaped"
    assert len(lines) == 2
    assert [hold["id"] for hold in listed("--subject", first.subject.uuid)] == [str(holds[0].pk)]
    everything = listed("--all", "--subject", first.subject.uuid)
    assert [(hold["id"], hold["lasts"]) for hold in everything] == [(str(holds[0].pk), True), (str(holds[2].pk), False)]
    assert everything[1] == {
        "id": str(holds[2].pk),
        "subject": str(first.subject.uuid),
        "reason": "another",
        "placed_at": "2026-11-24T12:00:02+00:00",
        "placed_by": "7",
        "until": "",
        "released_at": "2026-11-24T12:00:00+00:00",
        "released_by": build_operator_actor(),
        "suspended_until": "",
        "suspended_purposes": [],
        "agency": "",
        "oral_statement_at": "",
        "lasts": False,
    }
    assert run("list", "--all").splitlines()[2].endswith("released 2026-11-24T12:00:00+00:00: another")


def test_list_shows_the_hold_of_an_erased_person() -> None:
    person = Person()
    hold = place_hold(person.subject.uuid, reason=REASON, until=NOW + DAY, origin=Origin(), now=NOW)
    with clock.override_clock(lambda: NOW + DAY):
        person.subject.delete()
        assert not StoredClaim.objects.exists()
        assert [(row["id"], row["subject"]) for row in listed("--all")] == [(str(hold.pk), "")]
        assert "(erased)" in run("list", "--all")
