"""The page on which the help desk looks up a reference."""

import re
import uuid
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.core.management import call_command
from django.db import connections
from django.template.loader import render_to_string
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.contrib.officer_admin.reference_views import Reference, find_reference
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.audit_log import NOW, PEM, events, seal_now, sealed
from tests.support.audit_tampering import EVENT, is_postgresql, sql, without_triggers
from tests.support.officers import create_account, sign_in_officer
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
URL = "/admin/phi_oidc_audit/reference/"
ID = "019a5f3c-1b2d-7c4e-8f60-1a2b3c4d5e6f"
PREFIX = ID[:18]
WHOLE = Reference(uuid.UUID(ID), uuid.UUID(ID))
PARTIAL = Reference(uuid.UUID(f"{PREFIX}-0000-000000000000"), uuid.UUID(f"{PREFIX}-ffff-ffffffffffff"))
SECRETS = {"origin": Origin(actor="actor-1", session="session-1", client_ip="192.0.2.77"), "subject": "subject-1"}
MISSING, AMBIGUOUS, NO_REFERENCE = "No refusal with this reference", "Several refusals", "This is not a reference"


@pytest.fixture(autouse=True)
def _clock(settings: Any) -> Iterator[None]:
    settings.TIME_ZONE = "UTC"
    with clock.override_clock(lambda: NOW + timedelta(minutes=5)):
        yield


@pytest.fixture
def clerk() -> Client:
    return sign_in_officer("lookup_auditevent")


def refuse(**fields: Any) -> uuid.UUID:
    """Record a refused sign-in, and return its id."""
    refusal = {
        "action": "login.refused",
        "outcome": "failure",
        "reason": "state_unknown",
        "purpose": "",
        "detail": None,
    }
    return events(1, **{**refusal, **SECRETS, **fields})[0]


def look_up(client: Client, reference: object) -> str:
    return client.get(URL, {"reference": str(reference)}).content.decode()


def recorded(**filters: Any) -> list[tuple[str, str, str]]:
    """Return the subject, resource and detail of the recorded look-ups, those without a result first."""
    rows = AuditEvent.objects.filter(**{"action": "audit.viewed", **filters})
    return sorted((row.subject, row.resource, row.detail) for row in rows)


LOOKED_UP = '{"filters":[],"page":"reference"}'


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (ID, WHOLE),
        (ID.upper(), WHOLE),
        (f"  {ID}\n", WHOLE),
        (f"Reference for our help desk: {ID}.", WHOLE),
        (f"Kennung: „{ID.upper()}“ (Keller)", WHOLE),
        (ID.replace("-", ""), WHOLE),
        (ID.replace("-", " "), WHOLE),
        (" ".join(ID.replace("-", "")), WHOLE),
        (ID.replace("-", "–"), WHOLE),
        (ID.replace("-", " - "), WHOLE),
        (PREFIX, PARTIAL),
        (PREFIX.upper().replace("-", " "), PARTIAL),
        (PREFIX + "-", PARTIAL),
        (f"it says {PREFIX} and more", PARTIAL),
        ("9hYp2cJq4bXw6TzA", Reference(None, None)),
        ("Reference: -hYp2cJq4bXw6Tz_", Reference(None, None)),
    ],
)
def test_reference_is_found_in_what_is_entered(text: str, reference: Reference) -> None:
    assert find_reference(text) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Amina Keller",
        ID[:13],
        ID[:8],
        # Not a UUIDv7, a missing or an additional character, and a character that is none.
        "019a5f3c-1b2d-4c4e-8f60-1a2b3c4d5e6f",
        ID[:-1],
        f"{ID}0",
        ID.replace("c", "g"),
        "019a5f3c1b2d7c4",
    ],
)
def test_other_text_is_no_reference(text: str) -> None:
    assert find_reference(text) is None


def test_refusal_is_shown_without_the_person(clerk: Client) -> None:
    html = look_up(clerk, refuse())
    assert "Nov. 24, 2026, 4:05 p.m. (UTC)" in html
    assert "Sign-in refused: this browser has no pending sign-in" in html
    assert "Ask the caller to start again from the home page of the portal" in html
    content = html.partition('id="content"')[2]
    for secret in ("actor-1", "session-1", "192.0.2.77", "subject-1", "state_unknown", "login.refused"):
        assert secret not in content
    assert "/auditevent/" not in content


def test_look_up_is_an_event_with_the_subject_of_the_refusal(clerk: Client) -> None:
    event_id = refuse()
    look_up(clerk, event_id)
    assert recorded() == [("subject-1", f"AuditEvent/{event_id}", LOOKED_UP)]
    row = AuditEvent.objects.get(action="audit.viewed")
    assert row.actor == str(clerk.user.pk)  # type: ignore[attr-defined]
    look_up(clerk, randomness.uuid7(NOW))
    assert [resource for _subject, resource, _detail in recorded()] == ["", f"AuditEvent/{event_id}"]


def test_form_alone_and_malformed_input_are_no_look_up(clerk: Client) -> None:
    assert clerk.get(URL).status_code == 200
    for text, error in (("", "Enter the reference."), ("Amina Keller", NO_REFERENCE), ("x" * 2001, "at most 2000")):
        answer = clerk.get(URL, {"reference": text})
        assert (answer.status_code, error in answer.content.decode()) == (200, True)
        assert "Result" not in answer.content.decode()
    assert recorded() == []


def test_first_three_groups_are_enough_if_they_name_one_refusal(clerk: Client) -> None:
    event_id = refuse()
    # An event of the same request has the same time, but a user never sees its id.
    events(1, action="alert.raised", detail={"rule": "replay"}, purpose="")
    assert "Sign-in refused" in look_up(clerk, str(event_id)[:18])
    refuse(reason="state_expired")
    assert AMBIGUOUS in look_up(clerk, str(event_id)[:18])
    assert [resource for _subject, resource, _detail in recorded()] == ["", f"AuditEvent/{event_id}"]
    assert "Sign-in refused" in look_up(clerk, event_id)


def test_neighbouring_times_are_not_found(clerk: Client) -> None:
    event_id = refuse()
    for step in (-1, 1):
        assert MISSING in look_up(clerk, str(uuid.UUID(int=event_id.int + (step << 64)))[:18])


@pytest.mark.parametrize(
    ("action", "is_found"),
    [
        ("login.refused", True),
        ("activation.refused", True),
        ("access.denied", True),
        ("emergency.refused", True),
        ("login.succeeded", False),
        ("claim.revealed", False),
        ("logout.refused", False),
        ("api.refused", False),
    ],
)
def test_only_refusals_that_users_see_are_found(clerk: Client, action: str, is_found: bool) -> None:
    html = look_up(clerk, refuse(action=action, reason="user_inactive"))
    assert (MISSING in html, "What happened" in html) == (not is_found, is_found)


def test_missing_reference_says_what_to_do_and_its_time(clerk: Client) -> None:
    html = look_up(clerk, randomness.uuid7(NOW))
    assert MISSING in html
    assert "they are only counted" in html
    assert "By its first characters, the reference is from Nov. 24, 2026, 4:05 p.m. (UTC)." in html
    assert "By its first characters" not in look_up(clerk, randomness.uuid7(NOW + timedelta(days=1)))
    assert "By its first characters" not in look_up(clerk, "ffffffff-ffff-7fff-8fff-ffffffffffff")


def test_request_id_is_found_in_the_log_of_the_server(clerk: Client) -> None:
    html = look_up(clerk, "9hYp2cJq4bXw6TzA")
    assert "the id of a request" in html
    assert MISSING not in html


def test_those_who_may_view_the_audit_log_get_a_link_to_the_event(clerk: Client) -> None:
    event_id = refuse()
    url = reverse("admin:phi_oidc_audit_auditevent_change", args=[event_id])
    assert url in look_up(sign_in_officer("lookup_auditevent", "view_auditevent"), event_id)
    assert url not in look_up(clerk, event_id)


def test_page_needs_its_permission_and_a_refusal_is_an_event() -> None:
    event_id = refuse()
    client = sign_in_officer("view_auditevent")
    answer = client.get(URL, {"reference": str(event_id)})
    assert answer.status_code == 403
    denied = AuditEvent.objects.get(action="access.denied")
    assert (denied.reason, denied.resource) == ("permission_missing", "AuditEvent")
    assert denied.detail == '{"page":"auditevent/reference"}'
    page = answer.content.decode()
    assert (str(denied.id) in page, "Missing permission" in page) == (True, True)
    assert recorded() == []
    anonymous = Client().get(URL, {"reference": str(event_id)})
    assert (anonymous.status_code, "Sign-in refused" in anonymous.content.decode()) == (302, False)


def test_page_accepts_no_post(clerk: Client) -> None:
    assert clerk.post(URL, {"reference": ID}).status_code == 405
    assert clerk.head(URL, {"reference": ID}).status_code == 200


def test_nothing_is_shown_if_the_look_up_cannot_be_recorded(
    clerk: Client, settings: Any, audit_database_away: Any
) -> None:
    event_id = refuse()
    with audit_database_away():
        answer = clerk.get(URL, {"reference": str(event_id)})
    assert (answer.status_code, "Sign-in refused" in answer.content.decode()) == (503, False)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": []})
    answer = clerk.get(URL, {"reference": str(event_id)})
    assert (answer.status_code, "Sign-in refused" in answer.content.decode()) == (503, False)


def test_look_up_reads_few_rows(clerk: Client) -> None:
    event_id = refuse()
    with CaptureQueriesContext(connections[AUDIT_ALIAS]) as queries:
        look_up(clerk, event_id)
    selects = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    assert len(selects) == 1
    assert "LIMIT" in selects[0]
    assert "COUNT" not in selects[0]


@pytest.mark.parametrize("permitted", [True, False])
def test_lists_of_pages_link_to_it_for_those_who_may_open_it(permitted: bool, rf: RequestFactory) -> None:
    client = sign_in_officer("view_oidcsession", *(["lookup_auditevent"] if permitted else []))
    for url in ("/admin/", "/admin/django_phi_oidc/oidcsession/"):
        assert (f'href="{URL}"' in client.get(url).content.decode()) == permitted
    if permitted:
        # Without a permission for a model of this app.
        client = sign_in_officer("lookup_auditevent")
        for url in ("/admin/", "/admin/phi_oidc_audit/", URL):
            assert f'href="{URL}"' in client.get(url).content.decode()
        assert f'href="{URL}"' not in client.get("/admin/auth/").content.decode()
    request = rf.get("/admin/")
    request.user = create_account("root", is_staff=True, is_superuser=True)
    names = [model["object_name"] for app in admin.site.get_app_list(request) for model in app["models"]]
    assert names.count("Reference") == 1


def test_altered_row_is_reported(clerk: Client) -> None:
    event_id = refuse()
    with without_triggers():
        time = "infinity" if is_postgresql() else "2026-13-01 00:00:00"
        sql(f"UPDATE {EVENT} SET occurred_at = %s WHERE id = %s", time, event_id)
    html = look_up(clerk, event_id)
    assert "was altered" in html
    assert "Sign-in refused" not in html


def test_refusal_page_shows_what_can_be_looked_up(clerk: Client) -> None:
    page = Client().get("/oidc/callback/").content.decode()
    whole, short = re.findall("<code>(.+?)</code>", page)
    assert short == whole[:18]
    for reference in (whole, short):
        assert "Sign-in refused: the browser returned without the state of a sign-in" in look_up(clerk, reference)


def test_request_id_is_not_shortened(clerk: Client) -> None:
    page = render_to_string("django_phi_oidc/reference.html", {"reference": "9hYp2cJq4bXw6TzA"})
    assert re.findall("<code>(.+?)</code>", page) == ["9hYp2cJq4bXw6TzA"]
    assert "the id of a request" in look_up(clerk, "9hYp2cJq4bXw6TzA")


@pytest.mark.parametrize("is_readable", [True, False])
def test_refusal_that_is_only_in_an_archive_is_found(
    clerk: Client, tmp_path: Path, settings: Any, is_readable: bool
) -> None:
    options = {"KEYS": {"audit_signing": PEM}, "AUDIT": {"archives": tmp_path if is_readable else None}}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, **options)
    event_id = refuse()
    seal_now()
    sealed(2, at=NOW + timedelta(minutes=1))
    before = (NOW + timedelta(seconds=1)).isoformat()
    call_command("phi_oidc", "audit", "archive", tmp_path / "old.jsonl", "--before", before, stdout=StringIO())
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", event_id)
    page = look_up(clerk, event_id)
    assert ("What to do" in page) is is_readable
    assert ("old.jsonl" in page) is not is_readable
    assert MISSING not in page
    assert all(secret not in page for secret in ("actor-1", "session-1", "192.0.2.77", "subject-1"))
    expected = ("subject-1", f"AuditEvent/{event_id}") if is_readable else ("", "")
    assert recorded() == [(*expected, LOOKED_UP)]
    assert "old.jsonl" in look_up(clerk, str(event_id)[:18])
