"""The page of a person over HTTP: permissions, actions, and their events."""

import json
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Permission
from django.db import connection
from django.template import engines
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_phi_oidc.audit.events import Origin, parse_event
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.conf import providers
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.invitations.invitations import create_invitations
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.officer_admin.forms import REVEAL_REASONS
from django_phi_oidc.contrib.officer_admin.person_actions import get_person_actions
from django_phi_oidc.contrib.officer_admin.person_sections import MAX_EVENTS
from django_phi_oidc.crypto.keyring import get_keys
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.docs.test_docs import in_backticks
from tests.docs.test_docs import page as documented
from tests.support.audit_log import events
from tests.support.claims_fixtures import DAY
from tests.support.person_page_fixtures import CANARY, NOW, _at_noon, held, in_an_emergency  # noqa: F401 -- a fixture

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
Officer = Callable[[str], Any]
PRIVACY, SECURITY, HELP = "Privacy officer", "Security officer", "Help desk"
EVERY = {PRIVACY, SECURITY, HELP}
SEES = {
    "subjects": EVERY,
    "activation": EVERY,
    "roles": EVERY,
    "sessions": EVERY,
    "claims": {PRIVACY},
    "holds": {PRIVACY},
    "emergencies": {PRIVACY, SECURITY},
    "timeline": {PRIVACY, SECURITY},
}
DOES = {
    "export": ({PRIVACY}, "subject.exported"),
    "invite": ({HELP}, "activation.issued"),
    "withdraw": ({HELP}, "activation.revoked"),
    "end": (EVERY, "session.ended"),
    "reveal": ({PRIVACY}, "claim.revealed"),
    "scrub": ({PRIVACY}, "claim.scrubbed"),
    "hold": ({PRIVACY}, "hold.placed"),
    "release": ({PRIVACY}, "hold.released"),
    "disclose": ({PRIVACY}, "claim.revealed"),
    "close": ({PRIVACY}, "emergency.closed"),
}
"""The groups that may perform each action, and its event."""


def url(patient: Any, act: str = "") -> str:
    name, more = ("phi_oidc_person_act", [act]) if act else ("phi_oidc_person", [])
    return reverse(f"admin:{name}", args=[patient.user.pk, *more])


def fields(patient: Any, act: str) -> dict[str, Any]:
    """Create the rows that an action needs, and return the form data."""
    uuid = str(patient.subject.uuid)
    match act:
        case "export":
            return {"purpose": "PATRQT", "reason": "access_request"}
        case "invite":
            # The help desk invites accounts without a link.
            PairwiseSubject.objects.filter(user=patient.user).delete()
            return {"chosen": "default"}
        case "withdraw":
            return {"chosen": str(invited(patient).pk)}
        case "end":
            return {"chosen": str(patient.session.pk)}
        case "reveal":
            return {"chosen": "address", "purpose": "HOPERAT", "reason": "complaint"}
        case "hold":
            return {"chosen": uuid, "reason": "Docket 26-117"}
        case "release":
            return {"chosen": str(held(patient).pk)}
        case "disclose":
            held(patient)
            return {"chosen": uuid}
        case "close":
            return {"chosen": str(in_an_emergency(patient).pk)}
    return {}


def invited(patient: Any) -> ActivationCode:
    data = {"provider": providers()["default"], "key": get_keys("subject")[0], "lifetime": DAY}
    create_invitations([patient.user.pk], **data, origin=Origin(), now=NOW)
    return ActivationCode.objects.get()


def offered(body: str, patient: Any) -> set[str]:
    """Return the actions that the page has buttons for."""
    return set(re.findall(rf'href="{url(patient)}(\w+)/"', body))


def recorded(action: str, actor: Any) -> list[Any]:
    """Return the events of that action by that actor, stored or in the outbox."""
    outbox = [parse_event(row.event).event for row in AuditOutbox.objects.order_by("id")]
    found = [*AuditEvent.objects.order_by("id"), *outbox]
    return [event for event in found if (event.action, event.actor) == (action, str(actor.pk))]


def state(patient: Any) -> Any:
    return [
        *OIDCSession.objects.filter(user=patient.user).values_list("ended_at"),
        *StoredClaim.objects.order_by("pk").values_list("pk", "held_until"),
        *LegalHold.objects.order_by("pk").values_list("pk", "released_at"),
        *ActivationCode.objects.order_by("pk").values_list("pk", "revoked_at"),
        *EmergencyAccess.objects.values_list("closed_at"),
    ]


@pytest.mark.parametrize("group", sorted(EVERY))
def test_page_shows_permitted_sections_and_actions_of_each_group(group: str, patient: Any, officer: Officer) -> None:
    held(patient), in_an_emergency(patient), invited(patient)
    client = officer(group)
    page = client.get(url(patient))
    assert page.status_code == 200
    assert page["Cache-Control"] == "no-store"
    body = page.content.decode()
    assert set(re.findall(r'<h2 id="(\w+)">', body)) == {name for name, groups in SEES.items() if group in groups}
    # The person is linked, and the help desk may not link.
    assert offered(body, patient) == {name for name, (groups, _) in DOES.items() if group in groups} - {"invite"}
    assert CANARY not in body
    looks = recorded("audit.viewed", client.user)
    assert [event.subject for event in looks] == ([str(patient.subject.uuid)] if group in SEES["timeline"] else [])
    assert DOES.keys() == get_person_actions().keys()


def test_timeline_separates_events_by_the_person_from_events_about_them(patient: Any, officer: Officer) -> None:
    about, by = str(patient.subject.uuid), Origin(actor=str(patient.user.pk))
    events(MAX_EVENTS + 1, subject=about)
    events(3, origin=by, subject="")
    client = officer(SECURITY)
    page = client.get(url(patient)).content.decode()
    by_list, about_list = page.partition('<h2 id="timeline">')[2].split("<h3>About this person</h3>")
    assert by_list.count('<th scope="row">') == len(AuditEvent.objects.filter(actor=by.actor)[:MAX_EVENTS])
    assert about_list.count('<th scope="row">') == MAX_EVENTS
    by_them, about_them = re.findall(r'<a href="([^"]+)">All events', page)
    shown = client.get(unescape(by_them) + "&routine=show").context["rows"]
    assert {row.event.actor for row in shown} == {by.actor}
    found = client.get(unescape(about_them)).context["rows"]
    assert {row.event.subject for row in found} == {about}
    assert len(found) > MAX_EVENTS
    assert "All events" not in officer(HELP).get(url(patient)).content.decode()


def test_actions_without_anything_to_do_are_not_offered(patient: Any, officer: Officer) -> None:
    StoredClaim.objects.all().delete()
    OIDCSession.objects.filter(user=patient.user).update(ended_at=NOW, end_reason="logout")
    privacy, help_desk = officer(PRIVACY), officer(HELP)
    assert offered(privacy.get(url(patient)).content.decode(), patient) == {"export", "hold"}
    assert offered(help_desk.get(url(patient)).content.decode(), patient) == set()
    in_an_emergency(patient), held(patient), invited(patient)
    offers = {"export", "hold", "release", "disclose", "close"}
    assert offered(privacy.get(url(patient)).content.decode(), patient) == offers
    assert offered(help_desk.get(url(patient)).content.decode(), patient) == {"withdraw"}
    # The page of an action without a button still says that there is nothing to select.
    assert "There is nothing to select" in privacy.get(url(patient, "end")).content.decode()


def test_heading_is_the_name_and_the_facts_are_those_the_viewer_may_see(patient: Any, officer: Officer) -> None:
    patient.user.first_name, patient.user.last_name = "Amina", "Keller"
    patient.user.is_active, patient.user.last_login = False, NOW
    patient.user.save()
    page = officer(HELP).get(url(patient)).content.decode()
    assert "<h1>Amina Keller</h1>" in page
    facts = re.sub(r"<[^>]+>|\s+", " ", page.partition('<dl class="person-facts">')[2].partition("</dl>")[0])
    for fact in (patient.user.username, f"ID {patient.user.pk}", "deactivated", "2026-11-24 12:00:00"):
        assert fact in re.sub(" +", " ", facts)
    without = officer("")
    without.user.user_permissions.set(Permission.objects.filter(codename="view_legalhold"))
    page = without.get(url(patient)).content.decode()
    assert "<h1>Amina Keller</h1>" in page
    assert "2026-11-24 12:00:00" not in page
    assert "Live sessions" not in page


FIND = "/admin/django_phi_oidc/person/"


def test_person_is_found_by_a_name_or_an_id(patient: Any, officer: Officer) -> None:
    patient.user.last_name = "Keller"
    patient.user.save()
    (event,) = events(1, subject=str(patient.subject.uuid))
    (by,) = events(1, subject="", origin=Origin(actor=str(patient.user.pk)))
    client = officer(SECURITY)
    ids = (patient.user.pk, patient.subject.uuid, patient.session.pk, event, by)
    for term in ("keller", patient.user.username, *map(str, ids)):
        answer = client.get(FIND, {"q": term})
        assert (answer.status_code, answer.get("Location")) == (302, url(patient)), term
    assert "no-store" in client.get(FIND)["Cache-Control"]
    # Only the events were looked at; names and ids of sessions are no audit data.
    looks = recorded("audit.viewed", client.user)
    # Events of the same instant have no order.
    assert {(look.subject, look.resource) for look in looks} == {
        (str(patient.subject.uuid), f"AuditEvent/{event}"),
        ("", f"AuditEvent/{by}"),
    }
    assert len(looks) == 2
    assert "Nothing matches." in client.get(FIND, {"q": "nobody"}).content.decode()


def test_people_who_share_a_name_are_listed(patient: Any, officer: Officer) -> None:
    users = get_user_model()._default_manager
    for number in range(21):
        users.create_user(username=f"keller-{number:02}", last_name="Keller", first_name=f"No. {number}")
    page = officer(HELP).get(FIND, {"q": "Keller"}).content.decode()
    people = page.partition('<ul class="person-more">')[2]
    assert people.count("<li>") == 20
    assert "No. 3 Keller</a> (keller-03)" in people
    assert "There are more." in people


def test_person_is_found_only_by_what_the_viewer_may_see(patient: Any, officer: Officer) -> None:
    (event,) = events(1, subject=str(patient.subject.uuid))
    refused = officer("")
    assert refused.get(FIND, {"q": patient.user.username}).status_code == 403
    assert [(row.reason, row.resource) for row in recorded("access.denied", refused.user)] == [
        ("permission_missing", "")
    ]
    refused.user.user_permissions.set(Permission.objects.filter(codename="view_oidcsession"))
    for term in (patient.user.username, str(patient.subject.uuid), str(event)):
        assert "Nothing matches." in refused.get(FIND, {"q": term}).content.decode()
    assert refused.get(FIND, {"q": str(patient.session.pk)}).status_code == 302
    assert officer(HELP).get(FIND, {"q": patient.user.username}).status_code == 302


def test_box_to_find_a_person_is_on_the_index_of_those_who_may_use_it(patient: Any, officer: Officer) -> None:
    assert f'action="{FIND}"' in officer(HELP).get("/admin/").content.decode()
    assert f'action="{FIND}"' not in officer("").get("/admin/").content.decode()


def test_search_without_the_audit_log_finds_no_event(patient: Any, officer: Officer, audit_database_away: Any) -> None:
    (event,) = events(1, subject=str(patient.subject.uuid))
    client = officer(SECURITY)
    with audit_database_away():
        assert client.get(FIND, {"q": str(event)}).status_code == 503
    assert client.get(FIND, {"q": str(event)}).status_code == 302


def test_refusal_does_not_show_whether_the_person_exists(patient: Any, officer: Officer) -> None:
    client = officer("")
    unknown = url(patient).replace(str(patient.user.pk), "999999")
    assert [client.get(where).status_code for where in (url(patient), unknown, url(patient, "end"))] == [403] * 3
    reasons = {(event.reason, event.outcome) for event in recorded("access.denied", client.user)}
    assert reasons == {("permission_missing", "failure")}
    # Events of the same instant have no order.
    resources = sorted(event.resource for event in recorded("access.denied", client.user))
    assert resources == ["", f"user/{patient.user.pk}", f"user/{patient.user.pk}"]
    permitted = officer(HELP)
    assert permitted.get(url(patient)).status_code == 200
    for missing in (unknown, unknown.replace("999999", "no-number"), url(patient, "nothing")):
        assert permitted.get(missing).status_code == 404


@pytest.mark.parametrize("group", sorted(EVERY))
@pytest.mark.parametrize("act", DOES)
def test_action_is_permitted_by_group_and_always_recorded(act: str, group: str, patient: Any, officer: Officer) -> None:
    groups, event = DOES[act]
    client, data = officer(group), fields(patient, act)
    before = state(patient)
    form_page = client.get(url(patient, act))
    assert state(patient) == before, "a GET changes nothing"
    response = client.post(url(patient, act), data)
    if group in groups:
        assert (form_page.status_code, response.status_code in {200, 302}) == (200, True)
        # A legal hold keeps three claims, and each disclosed claim has an event.
        held_claims = StoredClaim.objects.filter(held_until__gt=NOW).count()
        assert len(recorded(event, client.user)) == (held_claims if act == "disclose" else 1)
        assert recorded("access.denied", client.user) == []
        assert (state(patient) != before) == (act not in {"reveal", "disclose", "export"})
    else:
        assert (form_page.status_code, response.status_code) == (403, 403)
        assert state(patient) == before
        assert recorded(event, client.user) == []
        denied = recorded("access.denied", client.user)
        assert [(event.reason, event.resource, json.loads(event.detail)) for event in denied] == [
            ("permission_missing", f"user/{patient.user.pk}", {"page": f"person/{act}"})
        ] * 2


def test_action_needs_a_csrf_token(patient: Any, officer: Officer) -> None:
    client = officer(HELP)
    client.handler.enforce_csrf_checks = True
    assert client.post(url(patient, "end"), fields(patient, "end")).status_code == 403
    assert OIDCSession.objects.get(user=patient.user).ended_at is None
    form = client.get(url(patient, "end")).content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
    assert token
    data = {**fields(patient, "end"), "csrfmiddlewaretoken": token[1]}
    assert client.post(url(patient, "end"), data, HTTP_REFERER="https://testserver/").status_code == 302
    assert OIDCSession.objects.get(user=patient.user).ended_at == NOW


def test_reveal_shows_the_value_once_and_records_purpose_and_reason(patient: Any, officer: Officer) -> None:
    client, data = officer(PRIVACY), fields(patient, "reveal")
    response = client.post(url(patient, "reveal"), data)
    assert CANARY in response.content.decode()
    assert response["Cache-Control"] == "no-store"
    (event,) = recorded("claim.revealed", client.user)
    assert (event.purpose, event.reason, event.subject) == ("HOPERAT", "complaint", str(patient.subject.uuid))
    assert CANARY not in client.get(url(patient)).content.decode()
    assert CANARY not in json.dumps([event.detail for event in AuditEvent.objects.all()])


@pytest.mark.parametrize(
    ("wrong", "status"),
    [({"purpose": "TREAT"}, 403), ({"purpose": ""}, 400), ({"reason": ""}, 400), ({"chosen": "birthdate"}, 400)],
)
def test_reveal_with_invalid_input_shows_nothing(
    wrong: dict[str, str], status: int, patient: Any, officer: Officer
) -> None:
    client, data = officer(PRIVACY), fields(patient, "reveal")
    response = client.post(url(patient, "reveal"), {**data, **wrong})
    assert response.status_code == status
    assert CANARY not in response.content.decode()
    denied = [event.reason for event in recorded("access.denied", client.user)]
    assert denied == (["purpose_not_declared"] if status == 403 else [])
    assert client.post(url(patient, "reveal"), data).status_code == 200


@pytest.mark.parametrize("act", ["reveal", "disclose", "export"])
def test_disclosure_needs_a_session_of_a_provider(act: str, patient: Any, officer: Officer) -> None:
    oidc_client, data = officer(PRIVACY), fields(patient, act)
    client: Any = type(oidc_client)()
    client.force_login(oidc_client.user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    response = client.post(url(patient, act), data)
    assert response.status_code == 403
    assert CANARY not in response.content.decode()
    assert [event.reason for event in recorded("access.denied", oidc_client.user)] == ["session_missing"]
    assert CANARY in oidc_client.post(url(patient, act), data).content.decode()


def test_f8_export_records_the_purpose_and_reason_of_the_officer(patient: Any, officer: Officer) -> None:
    client = officer(PRIVACY)
    response = client.post(url(patient, "export"), {"purpose": "HLEGAL", "reason": "authority"})
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")
    (event,) = recorded("subject.exported", client.user)
    assert (event.purpose, event.reason) == ("HLEGAL", "authority")


@pytest.mark.parametrize("wrong", [{"purpose": ""}, {"purpose": "TREAT"}, {"reason": ""}, {"reason": "curiosity"}])
def test_f8_export_without_purpose_or_reason_discloses_nothing(
    wrong: dict[str, str], patient: Any, officer: Officer
) -> None:
    client = officer(PRIVACY)
    response = client.post(url(patient, "export"), {**fields(patient, "export"), **wrong})
    assert response.status_code == 400
    assert CANARY not in response.content.decode()
    assert recorded("subject.exported", client.user) == []


def test_outage_of_the_audit_database_blocks_disclosure_but_not_ending_sessions(
    patient: Any, officer: Officer, audit_database_away: Any
) -> None:
    client = officer(PRIVACY)
    data = {act: fields(patient, act) for act in ("reveal", "end")}
    with audit_database_away():
        assert "The audit log is not available" in client.get(url(patient)).content.decode()
        response = client.post(url(patient, "reveal"), data["reveal"])
        assert (response.status_code, CANARY in response.content.decode()) == (503, False)
        assert client.post(url(patient, "invite"), {"chosen": "default"}).status_code == 503
        assert client.post(url(patient, "end"), data["end"]).status_code == 302
        assert OIDCSession.objects.get(user=patient.user).ended_at == NOW
    assert "The audit log is not available" not in client.get(url(patient)).content.decode()
    assert client.post(url(patient, "reveal"), data["reveal"]).status_code == 200


def test_scrub_is_refused_during_a_legal_hold(patient: Any, officer: Officer) -> None:
    client, hold = officer(PRIVACY), held(patient)
    kept = StoredClaim.objects.filter(subject=patient.subject).count()
    response = client.post(url(patient, "scrub"))
    assert response.status_code == 409
    assert StoredClaim.objects.filter(subject=patient.subject).count() == kept > 0
    client.post(url(patient, "release"), {"chosen": str(hold.pk)})
    assert client.post(url(patient, "scrub")).status_code == 302
    assert not StoredClaim.objects.filter(subject=patient.subject).exists()


@pytest.mark.parametrize("act", ["end", "withdraw", "release", "close", "hold"])
def test_action_on_rows_of_another_person_is_refused(act: str, patient: Any, officer: Officer, sign_in: Any) -> None:
    """Submitted rows must belong to the person in the URL."""
    client, data, other = officer(PRIVACY if act != "withdraw" else HELP), fields(patient, act), sign_in()
    before = state(patient)
    assert client.post(url(other, act), data).status_code == 400
    assert state(patient) == before
    assert client.post(url(patient, act), data).status_code == 302


def test_superuser_is_invited_only_by_a_superuser(patient: Any, officer: Officer) -> None:
    patient.user.is_superuser = True
    patient.user.save()
    client = officer(HELP)
    assert client.post(url(patient, "invite"), {"chosen": "default"}).status_code == 403
    assert not ActivationCode.objects.exists()
    assert [event.reason for event in recorded("access.denied", client.user)] == ["permission_missing"]
    client.user.is_superuser = True
    client.user.save()
    # The change of roles has ended the session.
    client.force_login(client.user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    assert client.post(url(patient, "invite"), {"chosen": "default"}).status_code == 200


def test_help_desk_cannot_invite_more_privileged_users(patient: Any, officer: Officer) -> None:
    client, add = officer(HELP), reverse("admin:phi_oidc_invitations_activationcode_add")
    patient.user.is_staff = True
    patient.user.save()
    colleague = officer(PRIVACY).user
    data = {"user": colleague.pk, "provider": "default"}
    where = reverse("admin:phi_oidc_person_act", args=[colleague.pk, "invite"])
    assert client.post(where, {"chosen": "default"}).status_code == 403
    assert client.post(add, data).status_code == 403
    assert not ActivationCode.objects.exists()
    denied = recorded("access.denied", client.user)
    assert {event.reason for event in denied} == {"permission_missing"}
    assert sorted(json.loads(event.detail)["page"] for event in denied) == ["activationcode/add", "person/invite"]
    for is_linked, status in ((True, 403), (False, 200)):
        if not is_linked:
            PairwiseSubject.objects.filter(user=patient.user).delete()
        assert client.post(url(patient, "invite"), {"chosen": "default"}).status_code == status
        assert client.post(add, {**data, "user": patient.user.pk}).status_code == status


def test_roles_show_the_rule_that_manages_them(patient: Any, officer: Officer, settings: Any) -> None:
    client = officer(PRIVACY)
    patient.user.groups.add(*client.user.groups.all())
    assert "no rule manages it" in client.get(url(patient)).content.decode()
    rule = {"claim": "groups", "values": ["po"], "groups": [PRIVACY]}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "ROLES": {"default": [rule]}}
    assert "provider default, rule 0: claim groups" in client.get(url(patient)).content.decode()


def test_number_of_queries_does_not_depend_on_the_number_of_sessions(
    patient: Any, officer: Officer, sign_in: Any
) -> None:
    client = officer(PRIVACY)
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            client.get(url(patient))
        counts.append(len(queries))
        assert not any(
            f'"{column}"' in query["sql"] for query in queries for column in ("value", "refresh_token", "note")
        )
        OIDCSession.objects.filter(pk__in=[sign_in().session.pk for _ in range(3)]).update(user=patient.user)
    assert counts[0] == counts[1] <= 25


class TemplatedAdmin(UserAdmin):
    change_form_template = "host_form.html"


@pytest.mark.parametrize("kind", [UserAdmin, admin.ModelAdmin, TemplatedAdmin])
def test_change_page_of_users_has_the_link_with_any_admin(
    kind: Any, patient: Any, officer: Officer, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = get_user_model()
    monkeypatch.setitem(admin.site._registry, users, kind(users, admin.site))
    admin.site.get_urls()
    loaders = [
        ("django.template.loaders.locmem.Loader", {"host_form.html": '{% extends "admin/change_form.html" %}'}),
        "django.template.loaders.app_directories.Loader",
    ]
    (declared,) = engines.templates.values()
    options = {**{k: v for k, v in declared.items() if k != "APP_DIRS"}, "NAME": "django"}
    options["OPTIONS"] = {**declared["OPTIONS"], "loaders": loaders}
    change = reverse("admin:auth_user_change", args=[patient.user.pk])
    with override_settings(TEMPLATES=[options]):
        page = officer(HELP).get(change).content.decode()
        assert f'<a href="{url(patient)}">Identity and access</a>' in page
        assert page.count("object-tools") >= 1
        without = officer("")
        without.user.user_permissions.set([])
        assert without.get(change).status_code == 403


def test_reasons_are_documented() -> None:
    assert {code for code, _ in REVEAL_REASONS} <= in_backticks(documented("how-to/admin-groups.md"))
