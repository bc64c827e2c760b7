"""Every admin page and action of the app for each group: permitted, or refused and recorded.

Pages are enumerated from the admin site, so a new page must be added to these tables.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from django_phi_oidc._internal.app_configs import list_installed_features
from django_phi_oidc.audit.admin_base import AuditedAdmin, TrailAdminMixin
from django_phi_oidc.audit.models import AuditEvent
from tests.support import admin_rows as house
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.person_page_fixtures import NOW, _at_noon, officer, patient  # noqa: F401 -- fixtures
from tests.support.phi_oidc_settings import override_phi_oidc, override_provider
from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures
from tests.unit.contrib.officer_admin.test_person_views import (
    EVERY,
    HELP,
    PRIVACY,
    SECURITY,
    recorded,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
Officer = Callable[[str], Any]
Denial = tuple[str, str, str, str]
ROOT, NO_GROUP = "superuser", ""
NOBODY: frozenset[str] = frozenset()
SEES = {
    "pairwisesubject": EVERY,
    "activationcode": EVERY,
    "oidcsession": EVERY,
    "sessionendjob": {PRIVACY, SECURITY},
    "pendingrevocation": {SECURITY},
    "storedclaim": {PRIVACY},
    "legalhold": {PRIVACY},
    "accountingcopy": {PRIVACY},
    "emergencyaccess": {PRIVACY, SECURITY},
    "securityalert": {PRIVACY, SECURITY},
    "setasideevent": {PRIVACY, SECURITY},
    "alertmute": {SECURITY},
    "auditevent": {PRIVACY, SECURITY},
    "auditcheckpoint": {PRIVACY, SECURITY},
    "trailjob": {PRIVACY, SECURITY},
    "sinkcursor": {SECURITY},
    "scimclient": {SECURITY},
}
"""Groups that may view the rows of a model, on all pages except those in FORMS."""
FORMS = {
    "pairwisesubject_add": {ROOT},
    "pairwisesubject_delete": {ROOT},
    "pairwisesubject_import": {ROOT},
    "pairwisesubject_template": {ROOT},
    "activationcode_add": {HELP, ROOT},
    "activationcode_import": {HELP, ROOT},
    "activationcode_template": {HELP, ROOT},
    "activationcode_codes": {HELP, ROOT},
    "sessionendjob_add": {PRIVACY, SECURITY, ROOT},
    "legalhold_add": {PRIVACY, ROOT},
    "alertmute_add": {SECURITY, ROOT},
    "scimclient_add": {SECURITY, ROOT},
}
"""Groups that may view a form that adds or deletes a row."""
ACTS = {
    "pairwisesubject_add": ({ROOT}, "subject.linked"),
    "pairwisesubject_delete": ({ROOT}, "subject.unlinked"),
    "activationcode_add": ({HELP, ROOT}, "activation.issued"),
    "activationcode:revoke": ({HELP, ROOT}, "activation.revoked"),
    "activationcode:make_another": ({HELP, ROOT}, "activation.issued"),
    "oidcsession:end_now": ({*EVERY, ROOT}, "session.ended"),
    "sessionendjob_add": ({PRIVACY, SECURITY, ROOT}, "session.end_requested"),
    "sessionendjob_continue": ({PRIVACY, SECURITY, ROOT}, None),
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
    "trailjob_file": ({PRIVACY, SECURITY, ROOT}, "audit.viewed"),
    "trailjob_download": ({PRIVACY, SECURITY, ROOT}, "audit.viewed"),
    "sinkcursor_deliver": ({SECURITY, ROOT}, "delivery.requested"),
    "scimclient_add": ({SECURITY, ROOT}, "scim.client_changed"),
    "scimclient:rotate": ({SECURITY, ROOT}, "scim.client_changed"),
    "scimclient:revoke": ({SECURITY, ROOT}, "scim.client_changed"),
}
"""Actions by POST, their groups, and their event; None if the event follows later from a worker."""


def may_view(name: str, group: str) -> bool:
    model, page = name.split("_")
    if page in {"add", "delete", "import", "template", "codes"}:
        return group in FORMS.get(name, NOBODY)
    return group in {*SEES[model], ROOT}


def may_act(name: str, group: str) -> bool:
    return group in ACTS.get(name, (NOBODY,))[0]


def form_data(name: str, rows: dict[str, Any]) -> dict[str, Any]:
    """Return the form data of that action."""
    model, colon, act = name.partition(":")
    if colon:
        chosen = "open emergency" if name == "emergencyaccess:close_now" else model
        return {"action": act, "index": 0, "_selected_action": [str(rows[chosen])], "post": "yes"}
    return {
        "pairwisesubject_add": {"provider": "default", "user": rows["newcomer"], "sub": "subject-1"},
        "pairwisesubject_delete": {"post": "yes"},
        "activationcode_add": {"provider": "default", "user": rows["newcomer"]},
        "sessionendjob_add": {"user": rows["patient"], "reason": "incident", "people": 1},
        "legalhold_add": {"subject": str(rows["subject"]), "reason": "Docket 26-118"},
        "emergencyaccess_change": {"verdict": "justified", "note": "A patient was in need."},
        "securityalert_change": {"note": "A drill."},
        "alertmute_add": {
            "kind": "replay",
            "until_0": f"{NOW + house.DAY:%Y-%m-%d}",
            "until_1": "10:00",
            "note": "Why.",
        },
        "trailjob_export": {"format": "csv"},
        "scimclient_add": {"name": "directory", "provider": "default"},
        "trailjob_file": {"file": SimpleUploadedFile("export.jsonl", b"a line\n")},
    }.get(name, {})


def state() -> dict[str, str]:
    """Return all rows of the core and its apps, except those of the audit log."""
    models = []
    for config in list_installed_features():
        if config.label != "phi_oidc_audit":
            models += config.get_models()
    return {model.__name__: repr(list(model._base_manager.order_by("pk").values())) for model in models}


def denials(client: Any) -> Counter[Denial]:
    """Return the recorded refusals; events of the same instant have no order."""
    rows = AuditEvent.objects.filter(action="access.denied", actor=str(client.user.pk))
    return Counter((row.outcome, row.reason, row.resource, row.detail) for row in rows)


def denial(page: house.Page, act: str, rows: dict[str, Any]) -> Denial:
    """Return the expected event of a refusal."""
    opts = page.model_admin.opts
    of = f"{opts.object_name}/{rows[opts.model_name]}" if page.key else str(opts.object_name)
    return "failure", "permission_missing", of, f'{{"page":"{opts.model_name}/{act}"}}'


@pytest.fixture
def member(officer: Officer, settings: Any, tmp_path: Path) -> Officer:
    """Return a function that signs in a member of that group, of none, or a superuser."""
    sinks = {"siem": {"type": "file", "path": tmp_path / "log"}}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT_EXPORTS=tmp_path, SIEM=sinks)
    settings.PHI_OIDC = override_provider(settings.PHI_OIDC, scim={"subject": "extension"})

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
    assert all(isinstance(row, AuditedAdmin | TrailAdminMixin) for row in house.admins())


@pytest.mark.parametrize("group", [*sorted(EVERY), NO_GROUP, ROOT])
def test_each_page_is_shown_to_permitted_groups_and_refusals_are_recorded(
    group: str,
    patient: Any,
    member: Officer,
) -> None:
    client = member(group)
    rows = house.furnish(patient, client.user)
    before, expected = state(), Counter[Denial]()
    for name, page in house.pages().items():
        answer = client.get(page.url(rows))
        if may_view(name, group):
            assert answer.status_code == (405 if page.is_posted else 200), name
        else:
            assert answer.status_code == 403, name
            expected[denial(page, page.name, rows)] += 1
        assert denials(client) == expected, name
    assert state() == before


@pytest.mark.parametrize("group", [*sorted(EVERY), NO_GROUP, ROOT])
def test_each_action_is_permitted_by_group_and_refusals_are_recorded(
    group: str,
    patient: Any,
    member: Officer,
) -> None:
    client, every = member(group), house.pages()
    rows = house.furnish(patient, client.user)
    before, expected = state(), Counter[Denial]()
    # POST to every page, whether or not it has an action.
    names = sorted({*every, *house.acts()}, key=lambda name: may_act(name, group))
    for name in names:
        model, colon, act = name.partition(":")
        page = every[f"{model}_changelist" if colon else name]
        if may_act(name, group):
            rows = house.furnish(patient, client.user)
            before = state()
        answer = client.post(page.url(rows), form_data(name, rows))
        event = ACTS.get(name, (NOBODY, None))[1]
        if may_act(name, group):
            assert answer.status_code in {200, 302}, name
            assert event is None or recorded(event, client.user), name
            assert (state() != before) == (event not in {"audit.exported", "audit.viewed"}), name
            continue
        assert state() == before, name
        if not colon and page.name not in {"change", "add"} and name not in ACTS and may_view(name, group):
            # A page to read, or a form without its file; some accept only GET.
            assert answer.status_code in {200, 302, 400, 405}, name
        elif page.name == "change" and isinstance(page.model_admin, TrailAdminMixin) and may_view(name, group):
            assert answer.status_code == 405, name
        else:
            assert answer.status_code == 403, name
            expected[denial(page, act or page.name, rows)] += 1
        assert denials(client) == expected, name


@pytest.mark.parametrize("page", ["change", "delete", "history"])
def test_refusal_does_not_show_whether_the_row_exists(
    page: str,
    patient: Any,
    member: Officer,
) -> None:
    client, claims = member(HELP), "/admin/django_phi_oidc/storedclaim"
    claim = patient.subject.claims.latest("pk")
    assert [client.get(f"{claims}/{key}/{page}/").status_code for key in (claim.pk, "Amina Keller")] == [403, 403]
    assert {row[2] for row in denials(client)} == {f"StoredClaim/{claim.pk}", "StoredClaim"}
    permitted = member(PRIVACY)
    assert permitted.get(f"{claims}/Amina Keller/{page}/").status_code == (403 if page == "delete" else 302)


def test_refusal_that_cannot_be_recorded_is_503(
    patient: Any,
    member: Officer,
    audit_database_away: Callable[[], Any],
) -> None:
    client, permitted = member(HELP), member(PRIVACY)
    for name in ("django_phi_oidc/storedclaim", "django_phi_oidc/storedclaim/report", "phi_oidc_audit/auditevent"):
        url = f"/admin/{name}/"
        with audit_database_away():
            answer = client.get(url)
            assert (answer.status_code, "The audit log is not available" in answer.content.decode()) == (503, True)
        assert client.get(url).status_code == 403
        assert permitted.get(url).status_code == 200


def test_crafted_request_is_refused_and_recorded(
    patient: Any,
    member: Officer,
) -> None:
    client, root = member(HELP), member(ROOT)
    rows = house.furnish(patient, root.user)
    subject, claim = rows["pairwisesubject"], rows["storedclaim"]
    subjects, claims = (f"/admin/django_phi_oidc/{name}/" for name in ("pairwisesubject", "storedclaim"))
    requests = [
        (client.get(f"{subjects}{subject}/delete/?_to_field=uuid"), f"PairwiseSubject/{subject}", "delete"),
        (client.get(f"{claims}{claim}/change/?_to_field=uuid"), f"StoredClaim/{claim}", "change"),
        (client.post(f"{subjects}add/", {"action": "delete_selected"}), "PairwiseSubject", "add"),
        (client.get("/admin/phi_oidc_audit/auditcheckpoint/7561234567897/change/"), "AuditCheckpoint", "change"),
    ]
    assert [answer.status_code for answer, *_ in requests] == [403] * 4
    expected = [(resource, f"{resource.split('/')[0].lower()}/{page}") for _, resource, page in requests]
    assert sorted((row[2], json.loads(row[3])["page"]) for row in denials(client).elements()) == sorted(expected)
    # No user may add through a change page, which does not hide submitted secrets.
    data = {"provider": "default", "user": rows["newcomer"], "sub": "subject-1", "_saveasnew": "1"}
    assert root.post(f"{subjects}{subject}/change/", data).status_code == 403
    assert root.post(f"{subjects}add/", data).status_code == 302


def test_only_forbidden_actions_of_a_request_are_recorded_as_denied(
    patient: Any,
    member: Officer,
) -> None:
    security, privacy = member(SECURITY), member(PRIVACY)
    rows = house.furnish(patient, privacy.user)
    sessions, claims = (f"/admin/django_phi_oidc/{name}/" for name in ("oidcsession", "storedclaim"))
    data = {"action": ["end_now", "delete_selected"], "_selected_action": [str(rows["oidcsession"])], "index": 0}
    assert security.post(sessions, data).status_code == 403
    assert [row[3] for row in denials(security)] == ['{"page":"oidcsession/delete_selected"}']
    assert not recorded("session.ended", security.user)
    act = {"action": "erase_now", "_selected_action": [str(rows["storedclaim"])], "index": 0, "post": "yes"}
    assert [privacy.post(f"{claims}{popup}", act).status_code for popup in ("?_popup=1", "")] == [200, 302]
    assert not denials(privacy)
