"""The page of a single event: words first, then the stored fields."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from django_phi_oidc.audit.events import Origin
from tests.support.audit_log import NOW, events
from tests.support.officers import create_account, sign_in_officer
from tests.support.session_fixtures import SignedIn, op, sign_in  # noqa: F401 -- fixtures

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture(autouse=True)
def _utc(settings: Any) -> None:
    settings.TIME_ZONE = "UTC"


@pytest.fixture
def viewer() -> Client:
    return sign_in_officer("view_auditevent")


def look(client: Client, **fields: Any) -> str:
    """Record an event, and return its page."""
    (event_id,) = events(1, **fields)
    answer = client.get(reverse("admin:phi_oidc_audit_auditevent_change", args=[event_id]))
    assert answer.status_code == 200
    return answer.content.decode()


def split_page(html: str) -> tuple[str, str]:
    """Return the part in words and the part with the stored fields."""
    content = html.partition('id="content"')[2]
    words, _, stored = content.partition("<details")
    return words, stored


def rows(html: str) -> dict[str, str]:
    """Return the labels and texts of the table in words."""
    table = html.partition("event-words")[2].partition("</table>")[0]
    cells = re.findall(r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td></tr>", table)
    return {label: unescape(re.sub("<[^>]+>", "", text)) for label, text in cells}


def test_event_is_shown_in_words_before_its_codes(viewer: Client, sign_in: Callable[[], SignedIn]) -> None:
    person = sign_in()
    user: Any = person.user
    user.first_name, user.last_name = "Amina", "Keller"
    user.save()
    nurse = create_account("nurse.brandt")
    html = look(
        viewer,
        origin=Origin(actor=str(nurse.pk), session="a-session", client_ip="198.51.100.1"),
        subject=str(person.subject.uuid),
        provider="default",
        reason="complaint",
        resource=f"user/{user.pk}",
    )
    words, stored = split_page(html)
    assert rows(words) == {
        "Time": "2026-11-24 16:05:09 UTC",
        "Outcome": "Success",
        "Reason": "A complaint is looked into",
        "Actor": "nurse.brandt",
        "Person": "Amina Keller",
        "Purpose": "Treatment",
        "Record": "Amina Keller",
        "Provider": "default",
        "Address": "198.51.100.1",
        "Data": "birthdate",
    }
    assert "<h1>Personal data disclosed: birthdate</h1>" in words
    assert "Stored personal data was decrypted and shown for the recorded purpose." in words
    for pk in (user.pk, nurse.pk):
        assert f'href="{reverse("admin:phi_oidc_person", args=[pk])}"' in words
    codes = ("claim.revealed", "success", "TREAT", "complaint", str(person.subject.uuid), f"user/{user.pk}")
    assert [code for code in codes if f">{code}<" not in stored] == []
    assert [code for code in codes if f">{code}<" in words] == []


def test_refused_sign_in_names_the_reason_and_what_to_do(viewer: Client) -> None:
    html = look(
        viewer,
        action="login.refused",
        outcome="failure",
        origin=Origin(),
        subject="",
        purpose="",
        reason="provider_error",
        detail={"provider_error": "access_denied", "stage": "callback"},
    )
    found = rows(html)
    assert "<h1>Sign-in refused: the user cancelled, or the provider refused the user</h1>" in html
    assert found["Outcome"] == "Refused or failed"
    assert found["Reason"] == "The provider answered with an error"
    assert found["What to do"].startswith("The user cancelled, or the provider refused the user")
    assert found["Actor"] == "The portal itself, or a user who is not signed in"
    assert found["Error of the provider"] == "The user cancelled, or the provider refused the user"
    assert not {"Person", "Purpose", "Record", "Provider", "Address"} & found.keys()
    assert 'class="trail-bad">Refused or failed' in html


def test_unknown_person_is_shown_by_the_stored_code(viewer: Client) -> None:
    words, _stored = split_page(look(viewer, origin=Origin(actor="os:root@portal-1"), subject="no uuid"))
    found = rows(words)
    assert (found["Actor"], found["Person"]) == ("os:root@portal-1", "no uuid")
    assert "/person/" not in words


@pytest.mark.parametrize(
    ("action", "detail", "label", "text"),
    [
        ("token.revocation_failed", {"status": "refused"}, "Status", "refused by the provider"),
        ("emergency.reviewed", {"verdict": "not_justified"}, "Verdict", "not justified"),
        ("alert.muted", {"rule": "replay"}, "Rule", "Repeated use of a token or sign-in"),
        ("alert.muted", {"until": "2026-12-01T09:00:00+00:00"}, "Until", "2026-12-01 09:00:00 UTC"),
        ("alert.muted", {"until": "soon"}, "Until", "soon"),
        ("logout.refused", {"rule": "exp_invalid"}, "Rule", "The token has expired, or has no valid end"),
        ("hold.placed", {"purposes": ["TREAT", "HLEGAL"]}, "Purposes", "Treatment, Legal"),
        ("emergency.opened", {"everything": True}, "All records", "yes"),
        (
            "role.changed",
            {"granted": ["is_staff", "is_superuser"]},
            "Status granted",
            "access to the admin, all permissions",
        ),
        ("subject.linked", {"created": False}, "Account created", "no"),
        ("audit.verified", {"findings": 0, "kinds": []}, "Findings", "0"),
    ],
)
def test_details_are_shown_in_words(viewer: Client, action: str, detail: Any, label: str, text: str) -> None:
    assert rows(look(viewer, action=action, detail=detail, purpose=""))[label] == text


def test_links_lead_to_related_events(viewer: Client) -> None:
    words, _stored = split_page(look(viewer, subject="s 1"))
    links = ("?actor=7", "?subject=s+1", "?search=a-session")
    assert [link for link in links if link not in words] == []
    words, _stored = split_page(look(viewer, subject="", origin=Origin()))
    assert not re.search("[?](actor|subject|search)=", words)


def test_times_are_in_utc_in_each_time_zone(viewer: Client, settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    html = look(viewer, at=NOW)
    assert rows(html)["Time"] == "2026-11-24 16:05:09 UTC"
    assert "2026-11-24 16:05:09.123456" in split_page(html)[1]


def test_account_that_the_actor_acts_for_is_shown_if_there_is_one(viewer: Client) -> None:
    child = create_account("child.keller")
    html = look(viewer, origin=Origin(actor="8", on_behalf_of=str(child.pk)))
    assert "child.keller" in rows(html)["On behalf of"]
    assert f"?on_behalf_of={child.pk}" in html
    page = viewer.get(reverse("admin:phi_oidc_audit_auditevent_changelist")).content.decode()
    assert "on behalf of child.keller" in page
    assert "behalf" not in look(viewer, origin=Origin(actor="8"))
