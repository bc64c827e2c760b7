"""The page of a person, through HTTP: who sees what, who may do what, and what the trail has of it."""

import json
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.db import connection
from django.template import engines
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_phi_oidc.access.emergency.models import EmergencyAccess
from django_phi_oidc.audit.events import Origin, parse_event
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.claims.models import LegalHold, StoredClaim
from django_phi_oidc.conf import providers
from django_phi_oidc.crypto.keyring import get_keys
from django_phi_oidc.officer_admin.forms import REVEAL_REASONS
from django_phi_oidc.officer_admin.person_actions import PERSON_ACTIONS
from django_phi_oidc.officer_admin.person_sections import MAX_ROWS
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.subjects.invitations import create_invitations
from django_phi_oidc.subjects.models import ActivationCode
from tests.docs.test_docs import in_backticks
from tests.docs.test_docs import page as documented
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- fixtures
from tests.support.audit_log import events
from tests.support.claims_fixtures import DAY
from tests.support.person_page_fixtures import CANARY, NOW, _at_noon, held, in_an_emergency, officer, patient  # noqa: F401 -- fixtures
from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures

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
"""Which groups may do it, and the event of it."""


def url(patient: Any, act: str = "") -> str:
    name, more = ("phi_oidc_person_act", [act]) if act else ("phi_oidc_person", [])
    return reverse(f"admin:{name}", args=[patient.user.pk, *more])


def fields(patient: Any, act: str) -> dict[str, Any]:
    """Return what the form of that act is filled in with, after making what it is done to."""
    uuid = str(patient.subject.uuid)
    match act:
        case "invite":
            return {"chosen": "default"}
        case "withdraw":
            given = {"provider": providers()["default"], "key": get_keys("SUBJECT_KEYS")[0], "lifetime": DAY}
            create_invitations([patient.user.pk], **given, origin=Origin(), now=NOW)
            return {"chosen": str(ActivationCode.objects.get().pk)}
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


def told(action: str, actor: Any) -> list[Any]:
    """Return the events of that action by that actor, in the trail or on their way there."""
    on_their_way = [parse_event(row.event).event for row in AuditOutbox.objects.order_by("id")]
    found = [*AuditEvent.objects.order_by("id"), *on_their_way]
    return [each for each in found if (each.action, each.actor) == (action, str(actor.pk))]


def state(patient: Any) -> Any:
    return [
        *OIDCSession.objects.filter(user=patient.user).values_list("ended_at"),
        *StoredClaim.objects.order_by("pk").values_list("pk", "held_until"),
        *LegalHold.objects.order_by("pk").values_list("pk", "released_at"),
        *ActivationCode.objects.order_by("pk").values_list("pk", "revoked_at"),
        *EmergencyAccess.objects.values_list("closed_at"),
    ]


@pytest.mark.parametrize("group", sorted(EVERY))
def test_page_shows_each_group_what_it_may_see_and_offers_what_it_may_do(
    group: str, patient: Any, officer: Officer
) -> None:
    held(patient), in_an_emergency(patient)
    client = officer(group)
    page = client.get(url(patient))
    assert page.status_code == 200
    assert page["Cache-Control"] == "no-store"
    body = page.content.decode()
    assert set(re.findall(r'<h2 id="(\w+)">', body)) == {name for name, groups in SEES.items() if group in groups}
    offered = set(re.findall(rf'href="{url(patient)}(\w+)/"', body))
    assert offered == {name for name, (groups, _) in DOES.items() if group in groups}
    assert CANARY not in body
    looks = told("audit.viewed", client.user)
    assert [each.subject for each in looks] == ([str(patient.subject.uuid)] if group in SEES["timeline"] else [])
    assert DOES.keys() == PERSON_ACTIONS.keys()


def test_timeline_has_the_newest_events_and_leads_to_all_of_them(patient: Any, officer: Officer) -> None:
    about, by = str(patient.subject.uuid), Origin(actor=str(patient.user.pk))
    events(MAX_ROWS + 1, subject=about)
    events(3, origin=by, subject="")
    client = officer(SECURITY)
    page = client.get(url(patient)).content.decode()
    timeline = page.partition('<h2 id="timeline">')[2]
    assert timeline.count('<th scope="row">') == MAX_ROWS
    by_them, about_them = re.findall(r'<a href="([^"]+)">Every event', timeline)
    assert {each.actor for each in client.get(unescape(by_them)).context["rows"]} == {by.actor}
    found = client.get(unescape(about_them)).context["rows"]
    assert {each.subject for each in found} == {about}
    assert len(found) > MAX_ROWS
    assert "Every event" not in officer(HELP).get(url(patient)).content.decode()


def test_page_is_refused_to_who_may_see_nothing_whether_or_not_there_is_such_a_person(
    patient: Any, officer: Officer
) -> None:
    client = officer("")
    nobody = url(patient).replace(str(patient.user.pk), "999999")
    assert [client.get(where).status_code for where in (url(patient), nobody, url(patient, "end"))] == [403] * 3
    reasons = {(each.reason, each.outcome) for each in told("access.denied", client.user)}
    assert reasons == {("permission_missing", "failure")}
    # Events of the very same instant have no order.
    about = sorted(each.resource for each in told("access.denied", client.user))
    assert about == ["", f"user/{patient.user.pk}", f"user/{patient.user.pk}"]
    permitted = officer(HELP)
    assert permitted.get(url(patient)).status_code == 200
    for missing in (nobody, nobody.replace("999999", "no-number"), url(patient, "nothing")):
        assert permitted.get(missing).status_code == 404


@pytest.mark.parametrize("group", sorted(EVERY))
@pytest.mark.parametrize("act", DOES)
def test_act_is_done_by_who_may_and_refused_to_others_with_an_event_either_way(
    act: str, group: str, patient: Any, officer: Officer
) -> None:
    groups, event = DOES[act]
    client, given = officer(group), fields(patient, act)
    before = state(patient)
    asked, answer = client.get(url(patient, act)), None
    assert state(patient) == before, "a GET does nothing"
    answer = client.post(url(patient, act), given)
    if group in groups:
        assert (asked.status_code, answer.status_code in {200, 302}) == (200, True)
        # A legal hold keeps three claims, and each that is seen has its own.
        held_ones = StoredClaim.objects.filter(held_until__gt=NOW).count()
        assert len(told(event, client.user)) == (held_ones if act == "disclose" else 1)
        assert told("access.denied", client.user) == []
        assert (state(patient) != before) == (act not in {"reveal", "disclose", "export"})
    else:
        assert (asked.status_code, answer.status_code) == (403, 403)
        assert state(patient) == before
        assert told(event, client.user) == []
        denied = told("access.denied", client.user)
        assert [(each.reason, each.resource, json.loads(each.detail)) for each in denied] == [
            ("permission_missing", f"user/{patient.user.pk}", {"page": f"person/{act}"})
        ] * 2


def test_act_without_csrf_token_is_refused_and_with_it_done(patient: Any, officer: Officer) -> None:
    client = officer(HELP)
    client.handler.enforce_csrf_checks = True
    assert client.post(url(patient, "end"), fields(patient, "end")).status_code == 403
    assert OIDCSession.objects.get(user=patient.user).ended_at is None
    form = client.get(url(patient, "end")).content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
    assert token
    given = {**fields(patient, "end"), "csrfmiddlewaretoken": token[1]}
    assert client.post(url(patient, "end"), given, HTTP_REFERER="https://testserver/").status_code == 302
    assert OIDCSession.objects.get(user=patient.user).ended_at == NOW


def test_reveal_shows_the_value_in_its_answer_alone_after_the_event_with_purpose_and_reason(
    patient: Any, officer: Officer
) -> None:
    client, given = officer(PRIVACY), fields(patient, "reveal")
    answer = client.post(url(patient, "reveal"), given)
    assert CANARY in answer.content.decode()
    assert answer["Cache-Control"] == "no-store"
    (event,) = told("claim.revealed", client.user)
    assert (event.purpose, event.reason, event.subject) == ("HOPERAT", "complaint", str(patient.subject.uuid))
    assert CANARY not in client.get(url(patient)).content.decode()
    assert CANARY not in json.dumps([each.detail for each in AuditEvent.objects.all()])


@pytest.mark.parametrize(
    ("wrong", "status"),
    [({"purpose": "TREAT"}, 403), ({"purpose": ""}, 400), ({"reason": ""}, 400), ({"chosen": "birthdate"}, 400)],
)
def test_reveal_of_what_does_not_fit_shows_nothing(
    wrong: dict[str, str], status: int, patient: Any, officer: Officer
) -> None:
    client, given = officer(PRIVACY), fields(patient, "reveal")
    answer = client.post(url(patient, "reveal"), {**given, **wrong})
    assert answer.status_code == status
    assert CANARY not in answer.content.decode()
    denied = [each.reason for each in told("access.denied", client.user)]
    assert denied == (["purpose_not_declared"] if status == 403 else [])
    assert client.post(url(patient, "reveal"), given).status_code == 200


@pytest.mark.parametrize("act", ["reveal", "disclose", "export"])
def test_nothing_is_opened_in_a_session_that_no_provider_vouched_for(act: str, patient: Any, officer: Officer) -> None:
    vouched, given = officer(PRIVACY), fields(patient, act)
    client: Any = type(vouched)()
    client.force_login(vouched.user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    answer = client.post(url(patient, act), given)
    assert answer.status_code == 403
    assert CANARY not in answer.content.decode()
    assert [each.reason for each in told("access.denied", vouched.user)] == ["session_missing"]
    assert CANARY in vouched.post(url(patient, act), given).content.decode()


def test_without_the_trail_nothing_is_opened_or_told_and_sessions_end_all_the_same(
    patient: Any, officer: Officer, audit_database_away: Any
) -> None:
    client = officer(PRIVACY)
    given = {act: fields(patient, act) for act in ("reveal", "end")}
    with audit_database_away():
        assert "The trail is not available" in client.get(url(patient)).content.decode()
        answer = client.post(url(patient, "reveal"), given["reveal"])
        assert (answer.status_code, CANARY in answer.content.decode()) == (503, False)
        assert client.post(url(patient, "invite"), {"chosen": "default"}).status_code == 503
        assert client.post(url(patient, "end"), given["end"]).status_code == 302
        assert OIDCSession.objects.get(user=patient.user).ended_at == NOW
    assert "The trail is not available" not in client.get(url(patient)).content.decode()
    assert client.post(url(patient, "reveal"), given["reveal"]).status_code == 200


def test_scrub_is_refused_while_a_legal_hold_keeps_and_done_after_it(patient: Any, officer: Officer) -> None:
    client, hold = officer(PRIVACY), held(patient)
    kept = StoredClaim.objects.filter(subject=patient.subject).count()
    answer = client.post(url(patient, "scrub"))
    assert answer.status_code == 409
    assert StoredClaim.objects.filter(subject=patient.subject).count() == kept > 0
    client.post(url(patient, "release"), {"chosen": str(hold.pk)})
    assert client.post(url(patient, "scrub")).status_code == 302
    assert not StoredClaim.objects.filter(subject=patient.subject).exists()


@pytest.mark.parametrize("act", ["end", "withdraw", "release", "close", "hold"])
def test_act_on_what_is_of_somebody_else_is_refused(act: str, patient: Any, officer: Officer, sign_in: Any) -> None:
    """What is posted is of the person in the address, or nothing is done."""
    client, given, other = officer(PRIVACY if act != "withdraw" else HELP), fields(patient, act), sign_in()
    before = state(patient)
    assert client.post(url(other, act), given).status_code == 400
    assert state(patient) == before
    assert client.post(url(patient, act), given).status_code == 302


def test_superuser_is_invited_by_a_superuser_alone(patient: Any, officer: Officer) -> None:
    patient.user.is_superuser = True
    patient.user.save()
    client = officer(HELP)
    assert client.post(url(patient, "invite"), {"chosen": "default"}).status_code == 403
    assert not ActivationCode.objects.exists()
    assert [each.reason for each in told("access.denied", client.user)] == ["permission_missing"]
    client.user.is_superuser = True
    client.user.save()
    # Roles have changed, and a change of roles ends sessions.
    client.force_login(client.user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    assert client.post(url(patient, "invite"), {"chosen": "default"}).status_code == 200


def test_help_desk_can_not_become_an_officer_by_an_invitation(patient: Any, officer: Officer) -> None:
    client, add = officer(HELP), reverse("admin:django_phi_oidc_activationcode_add")
    patient.user.is_staff = True
    patient.user.save()
    colleague = officer(PRIVACY).user
    given = {"user": colleague.pk, "provider": "default"}
    where = reverse("admin:phi_oidc_person_act", args=[colleague.pk, "invite"])
    assert client.post(where, {"chosen": "default"}).status_code == 403
    assert client.post(add, given).status_code == 403
    assert not ActivationCode.objects.exists()
    denied = told("access.denied", client.user)
    assert {each.reason for each in denied} == {"permission_missing"}
    assert sorted(json.loads(each.detail)["page"] for each in denied) == ["activationcode/add", "person/invite"]
    assert client.post(url(patient, "invite"), {"chosen": "default"}).status_code == 200
    assert client.post(add, {**given, "user": patient.user.pk}).status_code == 200


def test_roles_say_which_rule_gives_them_or_that_none_does(patient: Any, officer: Officer, settings: Any) -> None:
    client = officer(PRIVACY)
    patient.user.groups.add(*client.user.groups.all())
    assert "no rule manages it" in client.get(url(patient)).content.decode()
    rule = {"claim": "groups", "values": ["po"], "groups": [PRIVACY]}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "ROLES": {"default": [rule]}}
    assert "provider default, rule 0: claim groups" in client.get(url(patient)).content.decode()


def test_page_asks_as_much_for_many_sessions_as_for_one(patient: Any, officer: Officer, sign_in: Any) -> None:
    client = officer(PRIVACY)
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as asked:
            client.get(url(patient))
        counts.append(len(asked))
        assert not any(f'"{column}"' in each["sql"] for each in asked for column in ("value", "refresh_token", "note"))
        OIDCSession.objects.filter(pk__in=[sign_in().session.pk for _ in range(3)]).update(user=patient.user)
    assert counts[0] == counts[1] <= 25


class TemplatedAdmin(UserAdmin):
    change_form_template = "hosts_own.html"


@pytest.mark.parametrize("kind", [UserAdmin, admin.ModelAdmin, TemplatedAdmin])
def test_users_own_page_bears_the_link_whatever_admin_it_has(
    kind: Any, patient: Any, officer: Officer, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = get_user_model()
    monkeypatch.setitem(admin.site._registry, users, kind(users, admin.site))
    admin.site.get_urls()
    loaders = [
        ("django.template.loaders.locmem.Loader", {"hosts_own.html": '{% extends "admin/change_form.html" %}'}),
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
