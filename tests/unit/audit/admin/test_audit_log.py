"""The audit pages: views need a permission and are recorded, nothing can be changed, and damaged rows are shown."""

import gzip
import html
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit import search
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.log import archive_files
from django_phi_oidc.audit.log.bundle import verify_inclusion_bundle
from django_phi_oidc.audit.log.models import ArchiveFile
from django_phi_oidc.audit.merkle.checkpoint import parse_checkpoint, sign_checkpoint
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditUnsealed
from django_phi_oidc.audit.recorder import record
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.oidc.remedies import REMEDIES, SEE_MANUAL
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.audit_log import KEY, NOW, OTHER_KEY, PEM, events, sealed
from tests.support.audit_tampering import EVENT, LEAF, is_postgresql, sql, without_triggers
from tests.support.officers import create_account, sign_in_officer
from tests.support.phi_oidc_settings import override_phi_oidc

EVENTS, CHECKPOINTS = (f"/admin/phi_oidc_audit/audit{name}/" for name in ("event", "checkpoint"))
SUBJECT, SESSION = str(uuid.UUID(int=7)), str(uuid.UUID(int=9))
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
Officer = Callable[..., Client]


@pytest.fixture(autouse=True)
def _plain_http(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False


@pytest.fixture
def officer() -> Officer:
    """Return a function that signs in a staff user with the view permissions of models."""
    return lambda *models, **options: sign_in_officer(*(f"view_{model}" for model in models), **options)


def of_event(id_: object, page: str = "change") -> str:
    return f"{EVENTS}{id_}/{page}/"


def recorded(**filters: Any) -> list[tuple[str, str, str, str]]:
    """Return actor, subject, resource and detail of the recorded views, or of other events."""
    events = AuditEvent.objects.filter(**{"action": "audit.viewed", **filters})
    return [(event.actor, event.subject, event.resource, event.detail) for event in events]


def pages(id_: object) -> dict[str, list[str]]:
    return {
        "auditevent": [EVENTS, of_event(id_), of_event(id_, "proof")],
        "auditcheckpoint": [CHECKPOINTS, f"{CHECKPOINTS}2/change/", f"{CHECKPOINTS}2/note/"],
    }


@pytest.mark.parametrize("permitted", ["auditevent", "auditcheckpoint", "both", "neither"])
def test_each_page_needs_the_permission_of_its_own_model(permitted: str, officer: Officer) -> None:
    ids = sealed(2)
    models = {"both": ("auditevent", "auditcheckpoint"), "neither": ("pairwisesubject",)}.get(permitted, (permitted,))
    client = officer(*models)
    for model, urls in pages(ids[0]).items():
        for url in urls:
            views, refusals = len(recorded()), len(recorded(action="access.denied"))
            assert client.get(url).status_code == (200 if model in models else 403), url
            assert len(recorded()) - views == (model in models)
            assert len(recorded(action="access.denied")) - refusals == (model not in models)


def test_refused_view_is_an_event_with_its_page(officer: Officer) -> None:
    (one,) = sealed(1)
    client = officer("pairwisesubject")
    shown = client.get(of_event(one)).content + client.get(EVENTS).content
    assert b"claim.revealed" not in shown
    (first, second) = AuditEvent.objects.filter(action="access.denied")
    assert (first.actor, first.resource, first.outcome) == (str(client.user.pk), f"AuditEvent/{one}", "failure")  # type: ignore[attr-defined]
    assert (second.resource, second.reason, second.detail) == (
        "AuditEvent",
        "permission_missing",
        '{"page":"auditevent/changelist"}',
    )


def test_users_who_are_not_staff_are_redirected_to_the_login_page(officer: Officer) -> None:
    (one,) = sealed(1)
    for client in (Client(), officer("auditevent", "auditcheckpoint", is_staff=False)):
        for url in chain(*pages(one).values()):
            answer = client.get(url)
            assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/admin/login/")
    assert recorded() == []


def test_each_view_is_an_event_with_its_actor_and_subject(officer: Officer) -> None:
    one, _ = sealed(2, subject=SUBJECT)
    client = officer("auditevent", "auditcheckpoint")
    views = {
        EVENTS: ("", "", '{"filters":[],"page":"events"}'),
        f"{EVENTS}?subject={SUBJECT}&outcome=success&action=": (
            SUBJECT,
            "",
            '{"filters":["outcome","subject"],"page":"events"}',
        ),
        f"{EVENTS}?search={SUBJECT}": (SUBJECT, "", '{"filters":["search"],"page":"events"}'),
        f"{EVENTS}?search={uuid.UUID(int=8)}": ("", "", '{"filters":["search"],"page":"events"}'),
        of_event(one): (SUBJECT, f"AuditEvent/{one}", '{"filters":[],"page":"event"}'),
        of_event(one, "proof"): (SUBJECT, f"AuditEvent/{one}", '{"filters":[],"page":"proof"}'),
        CHECKPOINTS: ("", "", '{"filters":[],"page":"checkpoints"}'),
        f"{CHECKPOINTS}2/change/": ("", "AuditCheckpoint/2", '{"filters":[],"page":"checkpoint"}'),
        f"{CHECKPOINTS}2/note/": ("", "AuditCheckpoint/2", '{"filters":[],"page":"checkpoint"}'),
    }
    for url in views:
        assert client.get(url).status_code == 200
    assert recorded() == [(str(client.user.pk), *view) for view in views.values()]  # type: ignore[attr-defined]


def test_pages_return_503_without_the_audit_database(officer: Officer, audit_database_away: Any) -> None:
    (one,) = sealed(1)
    clients = officer("auditevent", "auditcheckpoint"), officer("pairwisesubject")
    for url in chain(*pages(one).values()):
        for client in clients:
            with audit_database_away():
                answer = client.get(url)
            assert answer.status_code == 503
            assert "The audit log cannot be written" in answer.content.decode()
            assert "no-store" in answer["Cache-Control"]
            # The link that tries again has the URL of the request.
            assert str(one) not in answer.content.decode().replace(url, "")


def test_pages_return_503_if_the_view_cannot_be_recorded(officer: Officer, settings: Any) -> None:
    (one,) = sealed(1)
    client = officer("auditevent", "auditcheckpoint")
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": []})
    for url in (EVENTS, of_event(one), of_event(one, "proof"), CHECKPOINTS):
        answer = client.get(url)
        assert (answer.status_code, "claim.revealed" in answer.content.decode()) == (503, False)


def test_no_request_changes_anything(officer: Officer) -> None:
    (one,) = sealed(1)
    root = Client()
    root.force_login(create_account("root", is_staff=True, is_superuser=True))
    before = list(AuditEvent.objects.values_list()), list(AuditCheckpoint.objects.values_list())
    for client in (root, officer("auditevent", "auditcheckpoint")):
        for url in chain(*pages(one).values()):
            for method in (client.post, client.put, client.patch, client.delete, client.options):
                assert method(url).status_code == 405
        for url in (
            f"{EVENTS}add/",
            of_event(one, "delete"),
            of_event(one, "history"),
            f"{CHECKPOINTS}add/",
            f"{CHECKPOINTS}1/delete/",
        ):
            assert client.post(url, {"post": "yes"}).status_code == client.get(url).status_code == 404
        index = client.get("/admin/").content.decode()
        assert f'href="{EVENTS}"' in index
        assert f"{EVENTS}add" not in index
    assert before == (list(AuditEvent.objects.values_list()), list(AuditCheckpoint.objects.values_list()))


@pytest.fixture
def _a_year_later() -> Iterator[None]:
    """Make the events of these views newer than the events of the test."""
    with clock.override_clock(lambda: NOW + timedelta(days=365)):
        yield


FILTERED: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "action": ({"action": "claim.stored"}, {"action": Action.CLAIM_STORED, "detail": None}),
    "outcome": ({"outcome": "error"}, {"outcome": "error"}),
    "actor": ({"actor": " 8 "}, {"origin": Origin(actor="8")}),
    "on behalf of": ({"on_behalf_of": "12"}, {"origin": Origin(actor="8", on_behalf_of="12")}),
    "subject": ({"subject": SUBJECT}, {"subject": SUBJECT}),
    "since": ({"since": "2026-11-24T17:05"}, {"at": NOW + timedelta(hours=1)}),
    "until": ({"until": "2026-11-24 16:05:09"}, {"at": NOW - timedelta(hours=1)}),
    "until with a zone": ({"until": "2026-11-24T18:05:09+02:00"}, {"at": NOW - timedelta(hours=1)}),
    "day": ({"since": "2026-11-25"}, {"at": NOW + timedelta(days=1)}),
    "search": ({"search": SESSION}, {"origin": Origin(session=SESSION)}),
}


@pytest.mark.usefixtures("_a_year_later")
@pytest.mark.parametrize("name", FILTERED)
def test_filter_shows_matching_events_and_stays_in_forms_and_links(name: str, officer: Officer, settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    parameters, fields = FILTERED[name]
    events(3, reason="another")
    events(101, **fields, reason="this")
    client = officer("auditevent")
    page = client.get(EVENTS, parameters)
    assert [row.event.reason for row in page.context["rows"]] == ["this"] * 100
    older = client.get(EVENTS + "?" + page.context["older"])
    assert [row.event.reason for row in older.context["rows"]] == ["this"]
    assert older.context["kept"] == page.context["kept"]
    back = client.get(EVENTS + "?" + older.context["newer"])
    assert [row.event.id for row in back.context["rows"]] == [row.event.id for row in page.context["rows"]]
    html = re.sub(r"\s+", " ", page.content.decode())
    (value,) = page.context["kept"].values()
    assert f'value="{value}"' in html
    assert page.context["older"].replace("&", "&amp;") in html


BAD = {
    "action unknown": ("action=claim.invented", "There is no such action."),
    "malformed action": ("action=revealed", "There is no such action."),
    "action with NUL": ("action=claim%00", "Null characters are not allowed."),
    "outcome unknown": ("outcome=maybe", "Select a valid choice."),
    "actor with NUL": ("actor=7%00", "Null characters are not allowed."),
    "search too long": ("search=" + "x" * 10_000, "at most 256 characters"),
    "subject too long": ("subject=" + "x" * 257, "at most 256 characters"),
    "person with a text": ("person=7,Amina", "Enter a valid UUID."),
    "person with many parts": ("person=7," + ",".join("x" * 900), "Enter a valid UUID."),
    "person with NUL": ("person=7,%00", "Null characters are not allowed."),
    "malformed time": ("since=yesterday", "Enter a valid date/time."),
    "time with NUL": ("since=2026%00", "Enter a valid date/time."),
    "time that does not exist": ("until=2026-02-30T00:00", "Enter a valid date/time."),
    "time before 1970": ("since=1969-12-31T23:59", "Enter a valid date/time."),
    "time at the edge": ("until=0001-01-01T00:00%2B14:00", "Enter a valid date/time."),
    "before is not an id": ("before=1", "names no entry to begin at"),
    "after with NUL": ("after=%00", "names no entry to begin at"),
    "both ends": (f"before={SESSION}&after={SESSION}", "before an entry or after one, not both"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_filter_shows_an_error_and_no_events(name: str, officer: Officer) -> None:
    events(3)
    query, message = BAD[name]
    page = officer("auditevent").get(f"{EVENTS}?{query}")
    assert (page.status_code, page.context["rows"]) == (200, [])
    assert message in page.content.decode()
    assert "<tbody>\n<tr>\n<th" not in page.content.decode()
    assert [view[1:3] for view in recorded()] == [("", "")], "no text of the URL is recorded"


@pytest.mark.parametrize(
    "query",
    [
        "action=clinic.opened",
        f"person=,{SESSION},",
        "search=%C3%A9",
        "since=9999-12-31T23:59",
        f"after={uuid.UUID(int=2**128 - 1)}",
        "until=1970-01-01",
    ],
)
def test_filter_without_matches_shows_an_empty_page(query: str, officer: Officer) -> None:
    events(3)
    page = officer("auditevent").get(f"{EVENTS}?{query}")
    assert "No events match these filters." in page.content.decode()
    assert 'role="alert"' not in page.content.decode()


@pytest.mark.parametrize(
    "query", ["before=x", "after=-1", f"before={2**63}", "before=" + "9" * 10_000, "before=1&after=2", "before=%00"]
)
def test_invalid_checkpoint_cursor_shows_no_checkpoints(query: str, officer: Officer) -> None:
    sealed(1)
    page = officer("auditcheckpoint").get(f"{CHECKPOINTS}?{query}")
    assert (page.status_code, page.context["rows"]) == (200, [])
    assert 'role="alert"' in page.content.decode()


def test_missing_row_is_404_without_an_event(officer: Officer) -> None:
    sealed(1)
    client = officer("auditevent", "auditcheckpoint")
    for url in (
        of_event(SESSION),
        of_event(SESSION, "proof"),
        of_event("1"),
        of_event("%00"),
        f"{CHECKPOINTS}2/change/",
        f"{CHECKPOINTS}{2**64}/note/",
        f"{CHECKPOINTS}{'9' * 5000}/change/",
    ):
        assert client.get(url).status_code == 404
    assert recorded() == []


def test_pages_make_few_queries_and_count_nothing(officer: Officer) -> None:
    for hours in range(3):
        sealed(110, at=NOW + timedelta(hours=hours), subject=SUBJECT)
    deep = str(AuditEvent.objects.order_by("id")[150:151].get().id)
    client = officer("auditevent", "auditcheckpoint")
    costs = {}
    for url in (
        EVENTS,
        f"{EVENTS}?before={deep}",
        f"{EVENTS}?subject={SUBJECT}&actor=7&after={deep}",
        f"{EVENTS}?person=7,{SUBJECT}&purpose=TREAT&before={deep}",
        f"{EVENTS}?search={SUBJECT}",
        of_event(deep),
        CHECKPOINTS,
        f"{CHECKPOINTS}?before=220",
        f"{CHECKPOINTS}220/change/",
    ):
        with (
            CaptureQueriesContext(connections["default"]) as default_queries,
            CaptureQueriesContext(connections[AUDIT_ALIAS]) as audit_queries,
        ):
            assert client.get(url).status_code == 200
        statements = [query["sql"] for query in (*default_queries, *audit_queries)]
        costs[url] = len(statements)
        # Only the events that a page checks are counted.
        assert not [statement for statement in statements if re.search(r"COUNT\((?!\*\) OVER)|OFFSET", statement)]
        assert len(statements) <= 9, statements
    assert costs[EVENTS] == costs[f"{EVENTS}?before={deep}"]


def test_event_page_shows_all_fields_and_the_log_position(officer: Officer) -> None:
    sealed(3)
    origin = Origin(actor="8", session=SESSION, client_ip="2001:db8::1", request_id="request-1")
    more = {"provider": "clinic", "resource": "AuditEvent/x", "reason": "why", "subject": SUBJECT}
    (one,) = sealed(1, at=NOW + timedelta(minutes=1), origin=origin, **more)
    client = officer("auditevent", "auditcheckpoint")
    html = client.get(of_event(one)).content.decode()
    row = AuditEvent.objects.get(id=one)
    shown = {
        str(one),
        "2026-11-24 16:06:09.123456",
        "claim.revealed",
        "success",
        "8",
        SESSION,
        "2001:db8::1",
        "request-1",
    }
    shown |= {*more.values(), "TREAT", row.mac_key, "3", "4 events"}
    assert [text for text in shown if f">{text}<" not in html] == []
    assert "&quot;claim&quot;: &quot;birthdate&quot;" in html
    assert f"{CHECKPOINTS}4/change/" in html
    assert f"{CHECKPOINTS}4/change/" not in officer("auditevent").get(of_event(one)).content.decode()


@pytest.mark.parametrize(
    ("action", "reason", "detail", "cure"),
    [
        ("login.refused", "token_error", {"provider_error": "invalid_client"}, REMEDIES["invalid_client"]),
        ("login.refused", "par_error", {"provider_error": "invalid_request"}, REMEDIES["par_error invalid_request"]),
        ("login.refused", "signature_invalid", {}, SEE_MANUAL),
        ("token.revocation_failed", "http_400", {"provider_error": "other"}, SEE_MANUAL),
        ("alert.raised", "invalid_client", {"rule": "revocation_blocked"}, REMEDIES["invalid_client"]),
        ("claim.revealed", "", {}, ""),
    ],
)
def test_event_page_of_a_refusal_says_what_to_do(
    officer: Officer, action: Action, reason: str, detail: dict[str, str], cure: str
) -> None:
    id_ = record(Action(action), origin=Origin(), now=NOW, reason=reason, detail=detail)
    body = officer("auditevent").get(of_event(id_)).content.decode()
    assert ("What to do" in body) is bool(cure)
    assert html.escape(cure) in body
    assert all(value in body for value in detail.values())


def test_unsealed_event_has_no_proof(officer: Officer) -> None:
    (one,) = events(1)
    client = officer("auditevent")
    html = client.get(of_event(one)).content.decode()
    assert "Not sealed yet." in html
    assert "proof/" not in html
    answer = client.get(of_event(one, "proof"), follow=True)
    assert answer.redirect_chain == [(of_event(one), 302)]
    assert "There is no proof of this event" in answer.content.decode()
    assert [view[3] for view in recorded()] == ['{"filters":[],"page":"event"}'] * 2
    AuditUnsealed.objects.filter(event_id=one).update(refused=True)
    assert "its MAC is invalid" in client.get(of_event(one)).content.decode()


def test_proof_is_a_valid_file(officer: Officer) -> None:
    one = sealed(7)[4]
    answer = officer("auditevent").get(of_event(one, "proof"))
    assert (answer["Content-Type"], answer["Content-Disposition"]) == (
        "application/json",
        f'attachment; filename="proof-{one}.json"',
    )
    proven = verify_inclusion_bundle(answer.content.decode(), [KEY.public_key()])
    assert (proven.event["id"], proven.leaf_index) == (str(one), 4)


def test_damaged_log_gives_no_proof(officer: Officer) -> None:
    one, other, *_ = sealed(7)
    with without_triggers():
        sql(f"DELETE FROM {LEAF} WHERE event_id = %s", other)
    answer = officer("auditevent").get(of_event(one, "proof"), follow=True)
    assert "or the log is damaged" in answer.content.decode()


def test_note_of_a_checkpoint_is_a_file(officer: Officer) -> None:
    sealed(2)
    client = officer("auditcheckpoint")
    note = AuditCheckpoint.objects.get().note
    answer = client.get(f"{CHECKPOINTS}2/note/")
    assert (answer.content.decode(), answer["Content-Type"]) == (note, "text/plain; charset=utf-8")
    assert answer["Content-Disposition"] == 'attachment; filename="checkpoint-2.txt"'
    assert note.replace("+", "&#x2B;") in client.get(f"{CHECKPOINTS}2/change/").content.decode().replace("+", "&#x2B;")


def test_checkpoints_are_listed_newest_first_in_pages(officer: Officer) -> None:
    for _ in range(102):
        sealed(1)
    client = officer("auditcheckpoint")
    page = client.get(CHECKPOINTS)
    older = client.get(f"{CHECKPOINTS}?{page.context['older']}")
    sizes = [[row.tree_size for row, _ in shown.context["rows"]] for shown in (page, older)]
    assert sizes == [list(range(102, 2, -1)), [2, 1]]
    assert page.context["rows"][0][1] == bytes(AuditCheckpoint.objects.last().root_hash).hex()
    assert (page.context["newer"], page.context["newest"], older.context["older"]) == ("", "", "")


@pytest.mark.parametrize(
    ("outcome", "detail", "shown"),
    [
        ("success", {"tree_size": 41, "findings": 0, "kinds": []}, "UTC: 41 events, no findings."),
        ("failure", {"tree_size": 41, "findings": 2, "kinds": ["altered"]}, "UTC: 2 findings (altered)."),
        ("error", None, "The verification at 2026-11-24 17:05 UTC did not finish."),
    ],
)
def test_last_verification_is_one_line_on_both_lists(
    outcome: str, detail: dict[str, Any] | None, shown: str, officer: Officer
) -> None:
    client, limited = officer("auditevent", "auditcheckpoint"), officer("auditcheckpoint")
    for url in (EVENTS, CHECKPOINTS):
        assert "Not verified yet. Select “Verify now”" in client.get(url).content.decode()
    assert "Verify now" not in limited.get(CHECKPOINTS).content.decode()
    fields = {"action": Action.AUDIT_VERIFIED, "detail": detail, "outcome": outcome}
    (newest,) = events(1, at=NOW + timedelta(hours=1), origin=Origin(actor="the auditor"), **fields)
    events(1, at=NOW, origin=Origin(), **{**fields, "detail": {"findings": 9}})
    for url in (EVENTS, CHECKPOINTS):
        (line,) = re.findall(r'<div class="trail-verified">\s*<p.*?</p>', client.get(url).content.decode(), re.DOTALL)
        assert shown in line
        assert "2026-11-24 17:05 UTC" in line
        assert ('class="trail-bad"' in line) == (outcome != "success")
        assert f'<a href="{of_event(newest)}">Details</a>' in line
    page = limited.get(CHECKPOINTS).content.decode()
    assert (shown in page, of_event(newest) in page) == (True, False)


def test_everything_is_escaped(officer: Officer) -> None:
    evil = "<script>alert('x')</script>"
    fields: dict[str, Any] = {"reason": evil, "subject": evil, "resource": evil, "purpose": evil, "provider": evil}
    origin = Origin(actor=evil, session=evil, client_ip=evil, request_id=evil)
    (one,) = sealed(1, origin=origin, detail={"claim": evil}, **fields)
    client = officer("auditevent")
    for url in (EVENTS, of_event(one), f"{EVENTS}?search={evil}&action={evil}&since={evil}&before={evil}"):
        html = client.get(url).content.decode()
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert" in html


def test_pages_have_no_inline_script_or_style_and_are_not_stored(officer: Officer) -> None:
    (one,) = sealed(1)
    client = officer("auditevent", "auditcheckpoint")
    for url in chain(*pages(one).values()):
        answer = client.get(url.replace("/2/", "/1/"))
        assert "no-store" in answer["Cache-Control"]
        assert not re.search(r"<style|<script(?![^>]* src=)|\son\w+=|\sstyle=", answer.content.decode())


def test_unreadable_row_is_reported(officer: Officer) -> None:
    one, other = sealed(2)
    with without_triggers():
        sql(
            f"UPDATE {EVENT} SET occurred_at = %s WHERE id = %s",
            "infinity" if is_postgresql() else "2026-13-01 00:00:00",
            one,
        )
    client = officer("auditevent")
    for url in (EVENTS, of_event(one)):
        html = client.get(url).content.decode()
        assert "was altered and is no event any more" in html
        assert str(other) not in html
    assert str(other) in client.get(EVENTS, {"after": one}).content.decode()
    with without_triggers():
        sql(f"UPDATE {EVENT} SET detail = %s WHERE id = %s", "no { JSON", other)
    assert "no { JSON" in client.get(of_event(other)).content.decode()


def test_own_views_and_revocations_are_hidden_until_they_are_asked_for(officer: Officer) -> None:
    client = officer("auditevent")
    own, other = (Origin(actor=str(pk)) for pk in (client.user.pk, "another"))  # type: ignore[attr-defined]
    viewed: dict[str, Any] = {"action": Action.AUDIT_VIEWED, "detail": None}
    (kept,) = events(1, at=NOW + timedelta(minutes=1))
    (by_another,) = events(1, at=NOW + timedelta(minutes=2), origin=other, **viewed)
    revoked: dict[str, Any] = {"action": Action.TOKEN_REVOKED, "detail": None}
    hidden = {*events(3, at=NOW + timedelta(minutes=3), origin=own, **viewed), *events(4, at=NOW, **revoked)}
    (failed,) = events(1, at=NOW + timedelta(minutes=4), outcome="failure", **revoked)

    page = client.get(EVENTS)
    assert [row.event.id for row in page.context["rows"]] == [failed, by_another, kept]
    assert "7 routine events on this page are hidden" in page.content.decode()
    assert '<a href="?routine=show">Show routine events</a>' in page.content.decode()
    shown = client.get(EVENTS, {"routine": "show"})
    assert {row.event.id for row in shown.context["rows"]} > {failed, by_another, kept, *hidden}
    assert '<a href="?">Hide routine events</a>' in shown.content.decode()
    # A filter by an action shows all of its events.
    by_action = client.get(EVENTS, {"action": "token.revoked"})
    assert len(by_action.context["rows"]) == 5
    assert "outine events" not in by_action.content.decode()


def test_page_that_ends_early_says_how_far_it_looked(officer: Officer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.scan_events, "__kwdefaults__", {**search.scan_events.__kwdefaults__, "max_scanned": 150})
    events(1, purpose="HMARKT")
    events(200, at=NOW + timedelta(minutes=1))
    client = officer("auditevent")
    page = client.get(EVENTS, {"purpose": "HMARKT"})
    assert page.context["rows"] == []
    assert "Checked back to 2026-11-24 16:06:09 UTC" in page.content.decode()
    older = client.get(f"{EVENTS}?{page.context['older']}")
    assert [row.event.purpose for row in older.context["rows"]] == ["HMARKT"]
    assert older.context["older"] == ""


def test_rows_show_names_with_links_by_one_more_query(officer: Officer) -> None:
    person = create_account("amina", first_name="Amina", last_name="Keller")
    subject = PairwiseSubject.objects.create(
        uuid=uuid.UUID(int=70), user=person, issuer="https://op", first_seen_at=NOW, last_seen_at=NOW
    )
    client = officer("auditevent")
    counts = []
    for _ in range(2):
        events(3, origin=Origin(actor=str(person.pk)), subject=str(subject.uuid))
        events(3, origin=Origin(actor=f"os:root@portal;as={person.pk}"), subject="")
        with CaptureQueriesContext(connections["default"]) as queries:
            page = client.get(EVENTS).content.decode()
        counts.append(len(queries))
    assert counts[0] == counts[1]
    link = f'<a href="/admin/django_phi_oidc/person/{person.pk}/">Amina Keller</a>'
    assert page.count(link) == 6 * 2 + 6
    assert f"os:root@portal;as={person.pk}" in page


@pytest.mark.parametrize("term", ["amina", "Keller", "pk"])
def test_search_for_one_person_leads_to_the_events_by_and_about_them(term: str, officer: Officer) -> None:
    person = create_account("amina", pk=70, first_name="Amina", last_name="Keller")
    subject = PairwiseSubject.objects.create(
        uuid=uuid.UUID(int=70), user=person, issuer="https://op", first_seen_at=NOW, last_seen_at=NOW
    )
    (by,) = events(1, origin=Origin(actor=str(person.pk)))
    (about,) = events(1, subject=str(subject.uuid), at=NOW + timedelta(minutes=1))
    events(3, at=NOW + timedelta(minutes=2))
    term = str(person.pk) if term == "pk" else term
    answer = officer("auditevent", "user").get(EVENTS, {"search": term, "outcome": "success"}, follow=True)
    assert answer.redirect_chain == [(f"?outcome=success&person={person.pk}%2C{subject.uuid}", 302)]
    assert [row.event.id for row in answer.context["rows"]] == [about, by]
    assert "By or about Amina Keller" in answer.content.decode()
    # The redirect is no view, and the view is about the person.
    assert [view[1:] for view in recorded()] == [
        (str(subject.uuid), "", '{"filters":["outcome","person"],"page":"events"}')
    ]


def test_search_by_name_needs_the_permission_to_view_accounts(officer: Officer) -> None:
    person = create_account("amina", first_name="Amina", last_name="Keller")
    events(1, origin=Origin(actor="amina"))
    limited = officer("auditevent")
    page = limited.get(EVENTS, {"search": "amina"})
    assert [row.event.actor for row in page.context["rows"]] == ["amina"]
    assert "Keller" not in page.content.decode()
    assert limited.get(EVENTS, {"search": person.pk}).status_code == 302
    assert officer("auditevent", "user").get(EVENTS, {"search": "keller"}).status_code == 302


def test_search_that_several_people_match_offers_a_choice(officer: Officer) -> None:
    for number in range(21):
        create_account(f"keller-{number:02}", last_name=f"Keller {number:02}")
    client = officer("auditevent", "user")
    page = client.get(EVENTS, {"search": "keller", "outcome": "failure"})
    assert page.status_code == 200
    assert len(page.context["person_links"]) == 20
    assert "There are more. Enter more of the name." in page.content.decode()
    choice = page.context["person_links"][3]
    assert choice.text == "Keller 03 (keller-03)"
    assert client.get(f"{EVENTS}{choice.url}").context["kept"] == {
        "outcome": "failure",
        "person": choice.url.rpartition("=")[2],
    }


def test_view_of_a_person_with_two_subjects_is_an_event_about_each(officer: Officer) -> None:
    client = officer("auditevent")
    other = str(uuid.UUID(int=8))
    assert client.get(EVENTS, {"person": f"7,{uuid.UUID(int=7).hex.upper()},{other},{SUBJECT}"}).status_code == 200
    assert sorted(view[1] for view in recorded()) == [SUBJECT, other]
    assert "not both" in client.get(EVENTS, {"person": f"7,{SUBJECT}", "search": "8"}).content.decode()


def test_side_bar_marks_the_selected_filters_and_removes_each(officer: Officer) -> None:
    events(1, purpose="TREAT")
    client = officer("auditevent")
    page = client.get(EVENTS, {"outcome": "success", "purpose": "TREAT", "actor": "7"})
    selected = {
        filter_.name: [(choice.display, choice.query_string) for choice in filter_.choices if choice.selected]
        for filter_ in page.context["filters"]
    }
    assert selected == {
        "outcome": [("Success", "?actor=7&purpose=TREAT&outcome=success")],
        "since": [("All", "?outcome=success&actor=7&purpose=TREAT")],
        "person": [("By 7", "?outcome=success&purpose=TREAT&actor=7")],
        "purpose": [("Treatment", "?outcome=success&actor=7&purpose=TREAT")],
        "action": [("All", "?outcome=success&actor=7&purpose=TREAT")],
    }
    (outcome, *_) = page.context["filters"]
    assert client.get(EVENTS + outcome.choices[0].query_string).context["kept"] == {"actor": "7", "purpose": "TREAT"}


@pytest.fixture
def archived(tmp_path: Path, settings: Any) -> list[uuid.UUID]:
    """Return the ids of events that are only in the archive `old.jsonl.gz`, in the declared folder."""
    options = {"KEYS": {"audit_signing": PEM}, "AUDIT": {"archives": tmp_path}}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, **options)
    ids = sealed(5, subject=SUBJECT, origin=Origin(actor="7", session=SESSION))
    sealed(3, at=NOW + timedelta(hours=1))
    before = (NOW + timedelta(minutes=1)).isoformat()
    call_command("phi_oidc", "audit", "archive", tmp_path / "old.jsonl.gz", "--before", before, stdout=StringIO())
    with without_triggers():
        for id_ in ids:
            sql(f"DELETE FROM {EVENT} WHERE id = %s", id_)
    return ids


def test_event_of_an_archive_is_shown_as_it_was_sealed(archived: list[uuid.UUID], officer: Officer) -> None:
    client = officer("auditevent")
    with (
        CaptureQueriesContext(connections["default"]) as default_queries,
        CaptureQueriesContext(connections[AUDIT_ALIAS]) as audit_queries,
    ):
        page = client.get(of_event(archived[2])).content.decode()
    assert len(default_queries) + len(audit_queries) <= 20
    file = ArchiveFile.objects.get()
    texts = "It was read from this archive", "old.jsonl.gz", file.sha256, "0–4", "2026-11-24 16:05:09", SESSION
    assert [text for text in texts if text not in page] == []
    assert "Download the proof" not in page
    assert recorded() == [(recorded()[0][0], SUBJECT, f"AuditEvent/{archived[2]}", '{"filters":[],"page":"event"}')]


CHANGES = ("no folder", "no file", "pipe", "altered event", "other log", "other leaves", "too large")


@pytest.mark.parametrize("change", CHANGES)
def test_event_of_an_archive_that_cannot_be_verified_is_not_shown(
    change: str,
    archived: list[uuid.UUID],
    officer: Officer,
    tmp_path: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "old.jsonl.gz"
    if change == "no folder":
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"archives": None})
    elif change == "no file":
        path.unlink()
    elif change == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif change == "other leaves":
        # Of another size than that of the row, which limits how much a request reads.
        ArchiveFile.objects.update(tree_size=4)
    elif change == "altered event":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"actor":"7"', b'"actor":"8"')))
    elif change == "other log":
        header, _, lines = gzip.decompress(path.read_bytes()).partition(b"\n")
        content = json.loads(header)
        content["checkpoint"] = sign_checkpoint(parse_checkpoint(content["checkpoint"]), OTHER_KEY)
        path.write_bytes(gzip.compress(json.dumps(content).encode() + b"\n" + lines))
    else:
        monkeypatch.setattr(archive_files, "MAX_READ_EVENTS", 4)
    page = officer("auditevent").get(of_event(archived[2]))
    text = page.content.decode()
    assert page.status_code == 200
    assert "old.jsonl.gz" in text
    assert "is not in the database" in text
    assert SESSION not in text
    assert [row[2] for row in recorded()] == [f"AuditEvent/{archived[2]}"]


def test_id_that_no_archive_has_is_404(archived: list[uuid.UUID], officer: Officer) -> None:
    client = officer("auditevent")
    # Of the time of the events in the table, and before all archives.
    for id_ in (uuid.UUID(int=archived[0].int + (3600_000 << 80) + 1), uuid.UUID(int=archived[0].int - (9 << 80))):
        assert client.get(of_event(id_)).status_code == 404
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE action = 'audit.archived'")
    assert client.get(of_event(archived[0], "proof")).status_code == 404
    assert recorded() == []


def test_archives_need_the_permission_to_view_events(archived: list[uuid.UUID], officer: Officer) -> None:
    response = officer("auditcheckpoint").get(of_event(archived[2]))
    assert response.status_code == 403
    assert "old.jsonl.gz" not in response.content.decode()


@pytest.mark.parametrize(
    ("query", "is_named"),
    [
        ("", True),
        ("?subject={subject}", True),
        ("?search={id}", True),
        ("?until=2026-11-24T16:30:00", True),
        ("?since=2026-11-24T16:30:00", False),
        ("?until=2026-11-24T16:00:00", False),
        ("?after={id}", False),
    ],
)
def test_last_page_names_the_archives_of_its_time(
    query: str, is_named: bool, archived: list[uuid.UUID], officer: Officer
) -> None:
    page = officer("auditevent").get(f"{EVENTS}{query.format(subject=SUBJECT, id=archived[2])}").content.decode()
    assert ("old.jsonl.gz" in page) is is_named
    assert (of_event(archived[2]) in page) is ("search" in query)


def test_archived_events_that_are_still_in_the_table_are_not_looked_up(
    officer: Officer, settings: Any, tmp_path: Path
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})
    sealed(5)
    call_command("phi_oidc", "audit", "archive", tmp_path / "old.jsonl", stdout=StringIO())
    assert ArchiveFile.objects.exists()
    assert "old.jsonl" not in officer("auditevent").get(EVENTS).content.decode()
