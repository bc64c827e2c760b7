"""Every page of ours in the admin, and every act on it, asked for by each group: given, or refused with its event.

What there is comes from the admin itself, so a page that is new has to be added to these tables.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps

from django_phi_oidc.audit.admin import TrailAdminMixin
from django_phi_oidc.audit.admin_base import AuditedAdmin
from django_phi_oidc.audit.models import AuditEvent
from tests.support import admin_rows as house
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.person_page_fixtures import NOW, _at_noon, officer, patient  # noqa: F401 -- fixtures
from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures
from tests.unit.officer_admin.test_person_views import EVERY, HELP, PRIVACY, SECURITY, told

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
Officer = Callable[[str], Any]
Told = tuple[str, str, str, str]
ROOT, NO_GROUP = "superuser", ""
NOBODY: frozenset[str] = frozenset()
SEES = {
    "pairwisesubject": EVERY,
    "activationcode": EVERY,
    "oidcsession": EVERY,
    "pendingrevocation": {SECURITY},
    "storedclaim": {PRIVACY},
    "legalhold": {PRIVACY},
    "emergencyaccess": {PRIVACY, SECURITY},
    "securityalert": {PRIVACY, SECURITY},
    "alertmute": {SECURITY},
    "auditevent": {PRIVACY, SECURITY},
    "auditcheckpoint": {PRIVACY, SECURITY},
    "trailjob": {PRIVACY, SECURITY},
}
"""Which groups may see the rows of a model: all its pages but these."""
FORMS = {
    "pairwisesubject_add": {ROOT},
    "pairwisesubject_delete": {ROOT},
    "activationcode_add": {HELP, ROOT},
    "legalhold_add": {PRIVACY, ROOT},
    "alertmute_add": {SECURITY, ROOT},
}
"""Who may see a form that makes or deletes a row. Others are nobody's."""
ACTS = {
    "pairwisesubject_add": ({ROOT}, "subject.linked"),
    "pairwisesubject_delete": ({ROOT}, "subject.unlinked"),
    "activationcode_add": ({HELP, ROOT}, "activation.issued"),
    "activationcode:revoke": ({HELP, ROOT}, "activation.revoked"),
    "activationcode:make_another": ({HELP, ROOT}, "activation.issued"),
    "oidcsession:end_now": ({*EVERY, ROOT}, "session.ended"),
    "pendingrevocation:retry": ({SECURITY, ROOT}, None),
    "storedclaim:erase_now": ({PRIVACY, ROOT}, "claim.scrubbed"),
    "legalhold_add": ({PRIVACY, ROOT}, "hold.placed"),
    "legalhold:release": ({PRIVACY, ROOT}, "hold.released"),
    "emergencyaccess_change": ({PRIVACY, ROOT}, "emergency.reviewed"),
    "emergencyaccess:close_now": ({PRIVACY, ROOT}, "emergency.closed"),
    "securityalert_change": ({SECURITY, ROOT}, "alert.acknowledged"),
    "alertmute_add": ({SECURITY, ROOT}, "alert.muted"),
    "alertmute:end": ({SECURITY, ROOT}, "alert.unmuted"),
    "trailjob_export": ({PRIVACY, SECURITY, ROOT}, "audit.exported"),
    "trailjob_verify": ({PRIVACY, SECURITY, ROOT}, None),
    "trailjob_download": ({PRIVACY, SECURITY, ROOT}, "audit.viewed"),
}
"""What is done by POST, by whom, and its event; None where whoever does the work, later, tells it."""


def may_look(name: str, group: str) -> bool:
    model, page = name.split("_")
    if page in {"add", "delete"}:
        return group in FORMS.get(name, NOBODY)
    return group in {*SEES[model], ROOT}


def may_act(name: str, group: str) -> bool:
    return group in ACTS.get(name, (NOBODY,))[0]


def given(name: str, rows: dict[str, Any]) -> dict[str, Any]:
    """Return what the form of that act is filled in with."""
    model, colon, act = name.partition(":")
    if colon:
        chosen = "open emergency" if name == "emergencyaccess:close_now" else model
        return {"action": act, "index": 0, "_selected_action": [str(rows[chosen])]}
    return {
        "pairwisesubject_add": {"provider": "default", "user": rows["newcomer"], "sub": "whoever"},
        "pairwisesubject_delete": {"post": "yes"},
        "activationcode_add": {"provider": "default", "user": rows["newcomer"]},
        "legalhold_add": {"subject": str(rows["subject"]), "reason": "Docket 26-118"},
        "emergencyaccess_change": {"verdict": "justified", "note": "Somebody was in need."},
        "securityalert_change": {"note": "A drill."},
        "alertmute_add": {
            "kind": "replay",
            "until_0": f"{NOW + house.DAY:%Y-%m-%d}",
            "until_1": "10:00",
            "note": "Why.",
        },
        "trailjob_export": {"format": "csv"},
    }.get(name, {})


def state() -> dict[str, str]:
    """Return all that there is but for the trail. What is sealed is not compared."""
    models = [each for each in apps.get_app_config("django_phi_oidc").get_models() if "Audit" not in each.__name__]
    return {each.__name__: repr(list(each._base_manager.order_by("pk").values())) for each in models}


def denials(client: Any) -> Counter[Told]:
    """Return what the trail has; events of the very same instant have no order."""
    found = AuditEvent.objects.filter(action="access.denied", actor=str(client.user.pk))
    return Counter((each.outcome, each.reason, each.resource, each.detail) for each in found)


def denial(page: house.Page, act: str, rows: dict[str, Any]) -> Told:
    """Return what the trail must have of one that was refused."""
    opts = page.model_admin.opts
    of = f"{opts.object_name}/{rows[opts.model_name]}" if page.key else str(opts.object_name)
    return "failure", "permission_missing", of, f'{{"page":"{opts.model_name}/{act}"}}'


@pytest.fixture
def member(officer: Officer, settings: Any, tmp_path: Path) -> Officer:  # noqa: F811
    """Return what signs in somebody of that group, of none, or a superuser."""
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EXPORT_FOLDER": tmp_path}

    def make(group: str) -> Any:
        client = officer("" if group == ROOT else group)
        client.user.is_superuser = group == ROOT
        client.user.save()
        return client

    return make


def test_tables_name_every_page_and_action() -> None:
    every, acts = house.pages(), house.acts()
    assert {name.split("_")[0] for name in every} == SEES.keys()
    assert FORMS.keys() <= every.keys()
    assert {name for name in acts if not name.endswith(":delete_selected")} == {name for name in ACTS if ":" in name}
    assert ACTS.keys() <= {*every, *acts}
    assert house.of_the_site() == house.PERSON
    assert all(isinstance(each, AuditedAdmin | TrailAdminMixin) for each in house.admins())


@pytest.mark.parametrize("group", [*sorted(EVERY), NO_GROUP, ROOT])
def test_each_page_is_shown_to_permitted_groups_and_refusals_are_recorded(
    group: str,
    patient: Any,  # noqa: F811
    member: Officer,
) -> None:
    client = member(group)
    rows = house.furnish(patient, client.user)
    before, wanted = state(), Counter[Told]()
    for name, page in house.pages().items():
        answer = client.get(page.url(rows))
        if may_look(name, group):
            assert answer.status_code == (405 if page.is_posted else 200), name
        else:
            assert answer.status_code == 403, name
            wanted[denial(page, page.name, rows)] += 1
        assert denials(client) == wanted, name
    assert state() == before


@pytest.mark.parametrize("group", [*sorted(EVERY), NO_GROUP, ROOT])
def test_each_action_is_permitted_by_group_and_refusals_are_recorded(
    group: str,
    patient: Any,  # noqa: F811
    member: Officer,
) -> None:
    client, every = member(group), house.pages()
    rows = house.furnish(patient, client.user)
    before, wanted = state(), Counter[Told]()
    # Each page is written to, too, whether or not it has an act.
    asked = sorted({*every, *house.acts()}, key=lambda name: may_act(name, group))
    for name in asked:
        model, colon, act = name.partition(":")
        page = every[f"{model}_changelist" if colon else name]
        if may_act(name, group):
            rows = house.furnish(patient, client.user)
            before = state()
        answer = client.post(page.url(rows), given(name, rows))
        event = ACTS.get(name, (NOBODY, None))[1]
        if may_act(name, group):
            assert answer.status_code in {200, 302}, name
            assert event is None or told(event, client.user), name
            assert (state() != before) == (event not in {"audit.exported", "audit.viewed"}), name
            continue
        assert state() == before, name
        if not colon and page.name not in {"change", "add"} and name not in ACTS and may_look(name, group):
            # A page to read: of ours some say that they are read by GET.
            assert answer.status_code in {200, 405}, name
        elif page.name == "change" and isinstance(page.model_admin, TrailAdminMixin) and may_look(name, group):
            assert answer.status_code == 405, name
        else:
            assert answer.status_code == 403, name
            wanted[denial(page, act or page.name, rows)] += 1
        assert denials(client) == wanted, name


@pytest.mark.parametrize("page", ["change", "delete", "history"])
def test_refusal_does_not_show_whether_the_row_exists(
    page: str,
    patient: Any,  # noqa: F811
    member: Officer,
) -> None:
    client, claims = member(HELP), "/admin/django_phi_oidc/storedclaim"
    claim = patient.subject.claims.latest("pk")
    assert [client.get(f"{claims}/{key}/{page}/").status_code for key in (claim.pk, "Amina Keller")] == [403, 403]
    assert {each[2] for each in denials(client)} == {f"StoredClaim/{claim.pk}", "StoredClaim"}
    permitted = member(PRIVACY)
    assert permitted.get(f"{claims}/Amina Keller/{page}/").status_code == (403 if page == "delete" else 302)


def test_refusal_that_cannot_be_recorded_is_503(
    patient: Any,  # noqa: F811
    member: Officer,
    audit_database_away: Callable[[], Any],  # noqa: F811
) -> None:
    client, permitted = member(HELP), member(PRIVACY)
    for url in (f"/admin/django_phi_oidc/{name}/" for name in ("storedclaim", "storedclaim/report", "auditevent")):
        with audit_database_away():
            answer = client.get(url)
            assert (answer.status_code, "The audit trail is not available" in answer.content.decode()) == (503, True)
        assert client.get(url).status_code == 403
        assert permitted.get(url).status_code == 200


def test_crafted_request_is_refused_and_recorded(
    patient: Any,  # noqa: F811
    member: Officer,
) -> None:
    client, root = member(HELP), member(ROOT)
    rows = house.furnish(patient, root.user)
    subject, claim = rows["pairwisesubject"], rows["storedclaim"]
    subjects, claims = (f"/admin/django_phi_oidc/{name}/" for name in ("pairwisesubject", "storedclaim"))
    told = [
        (client.get(f"{subjects}{subject}/delete/?_to_field=uuid"), f"PairwiseSubject/{subject}", "delete"),
        (client.get(f"{claims}{claim}/change/?_to_field=uuid"), f"StoredClaim/{claim}", "change"),
        (client.post(f"{subjects}add/", {"action": "delete_selected"}), "PairwiseSubject", "add"),
        (client.get("/admin/django_phi_oidc/auditcheckpoint/7561234567897/change/"), "AuditCheckpoint", "change"),
    ]
    assert [answer.status_code for answer, *_ in told] == [403] * 4
    wanted = [(resource, f"{resource.split('/')[0].lower()}/{page}") for _, resource, page in told]
    assert sorted((each[2], json.loads(each[3])["page"]) for each in denials(client).elements()) == sorted(wanted)
    # An add by way of a page that hides nothing of what was sent is nobody's.
    asked = {"provider": "default", "user": rows["newcomer"], "sub": "whoever", "_saveasnew": "1"}
    assert root.post(f"{subjects}{subject}/change/", asked).status_code == 403
    assert root.post(f"{subjects}add/", asked).status_code == 302


def test_only_forbidden_actions_of_a_request_are_recorded_as_denied(
    patient: Any,  # noqa: F811
    member: Officer,
) -> None:
    security, privacy = member(SECURITY), member(PRIVACY)
    rows = house.furnish(patient, privacy.user)
    sessions, claims = (f"/admin/django_phi_oidc/{name}/" for name in ("oidcsession", "storedclaim"))
    asked = {"action": ["end_now", "delete_selected"], "_selected_action": [str(rows["oidcsession"])], "index": 0}
    assert security.post(sessions, asked).status_code == 403
    assert [each[3] for each in denials(security)] == ['{"page":"oidcsession/delete_selected"}']
    assert not told("session.ended", security.user)
    act = {"action": "erase_now", "_selected_action": [str(rows["storedclaim"])], "index": 0}
    assert [privacy.post(f"{claims}{popup}", act).status_code for popup in ("?_popup=1", "")] == [200, 302]
    assert not denials(privacy)
