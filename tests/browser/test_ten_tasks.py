"""Ten tasks of officers, the help desk and patients, as a new user does them: from the first page, by what is on it.

Each test asserts the result and an upper limit of clicks and fields. PHI_TEST_FIGURES names a file for the figures of
docs/benchmarks/ten-tasks.md; the seconds are those of the script, without reading and thinking.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.template import engines
from django.urls import path

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.sessions.models import OIDCSession
from tests.browser.pages import Browse, Hand, read_message
from tests.support.hospital import Hospital, hospital, op, sign_in  # noqa: F401 -- fixtures
from tests.support.manual_blocks import block
from tests.urls import urlpatterns

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]), pytest.mark.browser]
Finish = Callable[..., None]


@pytest.fixture(autouse=True)
def _portal(settings: Any) -> Iterator[None]:
    """Open a portal whose first page has the documented link to *Your access*."""
    html = f"<!doctype html><html lang=en><title>Portal</title><main>{block('your-access', 'link')}</main></html>"
    home = path("", lambda request: HttpResponse(engines["django"].from_string(html).render({}, request)))
    portal = ModuleType("ward_portal")
    portal.urlpatterns = [home, *urlpatterns]  # type: ignore[attr-defined]
    sys.modules[portal.__name__] = portal
    settings.ROOT_URLCONF = portal.__name__
    yield
    del sys.modules[portal.__name__]


@pytest.fixture
def finish(request: pytest.FixtureRequest) -> Finish:
    """Return a function that ends a task and compares its figures with the limits."""

    def end(hand: Hand, *, clicks: int, fields: int) -> None:
        figures = hand.finish()
        if path := os.environ.get("PHI_TEST_FIGURES"):
            with Path(path).open("a") as file:
                file.write(f"{request.node.name} {json.dumps(figures)}\n")
        assert (figures["clicks"] <= clicks, figures["fields"] <= fields) == (True, True), figures

    return end


def start(browse: Browse, hospital: Hospital, username: str, url: str = "/admin/") -> Hand:
    hand = Hand(browse(hospital.client(username)))
    hand.open(url)
    return hand


def test_help_desk_finds_the_refused_sign_in_by_its_reference(
    hospital: Hospital, browse: Browse, finish: Finish
) -> None:
    hand = start(browse, hospital, "hanna")
    hand.click("#content a:text-is('Look up a reference')")
    hand.fill(hand.page.get_by_label("Reference"), hospital.reference)
    hand.click("#content input[value='Look up']")
    result = hand.page.locator("section[aria-labelledby=result]").inner_text()
    assert "What to do" in result
    assert "state_expired" not in result
    finish(hand, clicks=2, fields=1)


def test_help_desk_ends_all_sessions_of_a_person(hospital: Hospital, browse: Browse, finish: Finish) -> None:
    amina = OIDCSession.objects.filter(user=hospital.user("amina"), ended_at=None)
    others = OIDCSession.objects.filter(ended_at=None).exclude(user=hospital.user("amina"))
    others_before, live = others.count(), amina.count()
    assert live == 2
    hand = start(browse, hospital, "hanna")
    hand.fill("#person-search", "Amina Keller")
    hand.click("input[value=Find]")
    hand.click(".person-acts a:text-is('End sessions now')")
    hand.click("form.person-act input[type=submit]")
    read_message(hand.page, "2 sessions were ended.")
    assert (amina.count(), others.count()) == (0, others_before)
    finish(hand, clicks=3, fields=1)


def test_privacy_officer_shows_who_looked_at_a_record_last_month_and_prints_it(
    hospital: Hospital, browse: Browse, finish: Finish
) -> None:
    hand = start(browse, hospital, "otto")
    hand.fill("#person-search", "Amina Keller")
    hand.click("input[value=Find]")
    hand.click("a:text-is('All events about this person')")
    hand.fill("#id_since", "2026-10-01T00:00")
    hand.fill("#id_until", "2026-11-01T00:00")
    hand.click("button:text-is('Apply')")
    hand.page.wait_for_url("**since=2026-10-01**")
    hand.page.emulate_media(media="print")
    printed = hand.page.locator("#changelist").inner_text()
    assert "2026-10-01 00:00:00" in printed
    assert "About Amina Keller" in printed
    for selector in ("#nav-sidebar", "#changelist-filter", ".object-tools"):
        assert not hand.page.locator(selector).is_visible()
    for name in ("Lena Brandt", "Jonas Okafor", "Mehmet Yılmaz", "Maria Theresia"):
        assert name in printed
    assert len(hand.page.pdf()) > 10_000
    finish(hand, clicks=3, fields=3)


def test_privacy_officer_reviews_the_oldest_emergency(hospital: Hospital, browse: Browse, finish: Finish) -> None:
    hand = start(browse, hospital, "otto")
    hand.click("a:text-is('Emergencies to review')")
    hand.click("#result_list tbody a >> nth=0")
    hand.click("input[name=verdict][value=justified]")
    hand.fill("textarea[name=note]", "Confirmed by the ward.")
    hand.click("#content input[type=submit]")
    read_message(hand.page, "The review was saved. Next: 1 more waits for review.")
    oldest = EmergencyAccess.objects.filter(verdict="").order_by("opened_at").first()
    reviewed = EmergencyAccess.objects.get(pk=hospital.keys["emergencyaccess"])
    assert reviewed.verdict == "justified"
    note: Any = EmergencyAccess._meta.get_field("note")
    assert note.decrypt(reviewed) == "Confirmed by the ward."
    assert oldest is None or oldest.opened_at > reviewed.opened_at
    finish(hand, clicks=4, fields=1)


def test_security_officer_finds_out_why_the_siem_gets_nothing(
    hospital: Hospital, browse: Browse, finish: Finish
) -> None:
    hand = start(browse, hospital, "sina")
    hand.click("a:text-is('Delivery to the SIEM')")
    splunk = hand.page.locator("section:has(h2:has-text('splunk'))").inner_text()
    assert "The collector cannot be reached." in splunk
    assert "What to do" in splunk
    assert "Look the code up" not in splunk
    finish(hand, clicks=1, fields=0)


def test_privacy_officer_exports_march_for_the_auditor_and_verifies_the_file(
    hospital: Hospital, browse: Browse, finish: Finish, tmp_path: Path
) -> None:
    hand = start(browse, hospital, "otto")
    hand.click("#content a:text-is('Audit events')")
    hand.fill("#id_since", "2026-03-01T00:00")
    hand.fill("#id_until", "2026-04-01T00:00")
    hand.click("button:text-is('Apply')")
    hand.page.wait_for_url("**since=2026-03-01**")
    hand.choose("select[name=format]", "JSON lines as sealed")
    file = hand.download("input[value=Export]", tmp_path / "march.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    march = AuditEvent.objects.filter(occurred_at__gte="2026-03-01T00:00Z", occurred_at__lt="2026-04-01T00:00Z")
    assert [line["id"] for line in lines] == [str(pk) for pk in march.order_by("id").values_list("pk", flat=True)]
    hand.click("a:text-is('Verify a file')")
    hand.pick("input[type=file]", file)
    hand.click("input[value='Verify the file']")
    result = hand.page.locator("section[aria-labelledby=phi-file-result]").inner_text()
    assert "The file is verified" in result
    assert f"All {len(lines)} events are what was sealed" in result
    assert "No event that matches the filters is missing." in result
    finish(hand, clicks=6, fields=3)
    altered = file.read_bytes().replace(b'"idle_timeout"', b'"idle_timeous"', 1)
    (tmp_path / "altered.jsonl").write_bytes(altered)
    hand.pick("input[type=file]", tmp_path / "altered.jsonl")
    hand.click("input[value='Verify the file']")
    result = hand.page.locator("section[aria-labelledby=phi-file-result]").inner_text()
    assert "The file is not what was exported" in result
    assert "1 fault was found." in result


def test_help_desk_invites_fifty_people_from_a_file(
    hospital: Hospital, browse: Browse, finish: Finish, tmp_path: Path
) -> None:
    users = [get_user_model()._default_manager.create_user(f"new-{number:02}") for number in range(50)]
    before = ActivationCode.objects.unused().count()
    people = tmp_path / "people.csv"
    people.write_text("\n".join(["user", *(user.get_username() for user in users)]))
    hand = start(browse, hospital, "hanna")
    # The name of the app is a link, too.
    hand.click("#content th a:text-is('Activation codes')")
    hand.click("text=Import CSV file")
    hand.pick("input[type=file]", people)
    hand.click("input[value='Show preview']")
    hand.click("input[value='Invite 50 people']")
    codes = hand.download("input[value='Download the codes (CSV)']", tmp_path / "codes.csv")
    assert len(codes.read_text("utf-8-sig").splitlines()) == 51
    assert ActivationCode.objects.unused().count() == before + 50
    finish(hand, clicks=5, fields=1)


def test_security_officer_sees_whether_yesterday_was_unusual(
    hospital: Hospital, browse: Browse, finish: Finish
) -> None:
    hand = start(browse, hospital, "sina")
    answers = hand.page.locator("section", has_text="Was yesterday unusual?").first.inner_text()
    assert "Refusals yesterday (Monday): 26." in answers
    assert "Unusually many." in answers
    assert hand.page.locator("li.overview-unusual").count() == 1
    finish(hand, clicks=0, fields=0)


def test_patient_signs_out_a_lost_phone(hospital: Hospital, browse: Browse, finish: Finish) -> None:
    live = OIDCSession.objects.filter(user=hospital.user("amina"), ended_at=None)
    assert live.count() == 2
    hand = start(browse, hospital, "amina", "/")
    hand.click("a:text-is('Your access')")
    phone = hand.page.get_by_role("listitem").filter(has_text="Safari on iPhone")
    hand.click(phone.get_by_role("link", name="Sign out this device"))
    assert "Safari on iPhone" in hand.page.inner_text("body")
    hand.click("button:text-is('Sign out')")
    assert "The device was signed out." in hand.page.locator("[role=status]").inner_text()
    assert [row.pk for row in live] == [hospital.people["amina"].session.pk]
    finish(hand, clicks=3, fields=0)


def test_patient_downloads_own_data(hospital: Hospital, browse: Browse, finish: Finish, tmp_path: Path) -> None:
    hand = start(browse, hospital, "amina", "/")
    hand.click("a:text-is('Your access')")
    hand.click("a:text-is('Download your data')")
    file = hand.download("button:text-is('Download')", tmp_path / "data.json")
    assert "Bundesgasse" in file.read_text("utf-8")
    finish(hand, clicks=3, fields=0)
