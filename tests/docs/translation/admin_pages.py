"""Visits to each page of the package in the admin, and each form on it."""

import re
import uuid
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.app_labels import is_own_label
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.log.models import ArchiveFile
from django_phi_oidc.audit.merkle.cosignature import WitnessKey, encode_witness_key
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditUnsealed
from django_phi_oidc.audit.purposes import PURPOSES
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.audit_exports.models import TrailJob
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.monitoring.models import AlertMute, SecurityAlert
from django_phi_oidc.contrib.officer_admin.models import HourlyCount, SessionEndJob
from django_phi_oidc.contrib.officer_admin.person_actions import get_person_actions
from django_phi_oidc.contrib.officer_admin.trends import PERIODS
from django_phi_oidc.contrib.scim.models import SCIMClient
from django_phi_oidc.contrib.siem.fault_texts import FAULT_TEXTS
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.docs.translation.portal_rows import NAME, PERMISSION, WORD, invited, store_claims
from tests.docs.translation.pseudo_translation import untranslated
from tests.support.audit_log import KEY, events
from tests.support.audit_outage import audit_database_fails
from tests.support.audit_tampering import EVENT, is_postgresql, sql, without_triggers
from tests.support.claims_fixtures import NOW
from tests.support.dashboard_fixtures import fill_month
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import SignedIn

DATA = re.compile(
    "|".join(
        [
            # Ids, digests, times, addresses, names of records, codes of more than one word.
            r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b(?=[a-f]*\d)[0-9a-f]{8,64}\b",
            r"\d\d\d\d-\d\d-\d\dT[\d:.+]+Z?|https?://\S+",
            r"\b[A-Z]\w*/[\w*-]+|\buser/\d+|\b[a-z]+(?:_[a-z]+)+\b",
            r"\bUTC\b|\bCST\b|\bJSON\b|\bhold-[0-9a-f]{32}\b|\(csv\)|(?<=ｉｓ )create\b",
            r"(?<=ｃｏｌｕｍｎ )(?:code|sub|user)\b",
            *(
                rf"(?<![\w.]){re.escape(code)}(?!\.?\w)"
                for code in sorted([*Action, *PURPOSES, PERMISSION], reverse=True)
            ),
        ]
    )
)
LEFT = {
    *(
        ("td", code)
        for code in ("administrator", "complaint", "default", "undecryptable", "a-request", "a-session", "r-1")
    ),
    ("a", "a-session"),
    *(("span", code) for code in ("administrator", "complaint")),
    *((element, outcome) for element in ("td", "dd", "a", "span") for outcome in ("success", "failure", "error")),
    *(("@alt", text) for text in ("Search", "True", "False")),
}
"""Codes of one word, where they stand alone in a cell of the trail; and what Django itself says in English."""
Found = dict[str, list[tuple[str, str]]]
ALIKE = (OIDCSession, PendingRevocation, AuditEvent)
"""Their pages differ in nothing that the list has not: a few will do."""

EXPORT = {"purpose": "PATRQT", "reason": "access_request"}


def look(found: Found, client: Any, url: str, given: Any = None, *, status: int = 200) -> Any:
    """Get a page, or post a form, and note in found what of it is in no catalogue."""
    if given is None:
        page = client.get(url, follow=True, headers={"Accept": "text/html"})
    else:
        page = client.post(url, given, follow=True, headers={"Accept": "text/html"})
    assert page.status_code == status, (url, given, page.status_code, page.content.decode()[:3000])
    if page.get("Content-Type", "").startswith("text/html"):
        texts = [each for each in untranslated(page.content.decode(), data=DATA) if each not in LEFT]
        # The id of a request is any letters, and stands on the page of an event.
        ids = (
            set(AuditEvent.objects.values_list("request_id", flat=True))
            if texts and (status, "/auditevent/" in url) == (200, True)
            else ()
        )
        if texts := [(where, text) for where, text in texts if where != "td" or text not in ids]:
            found[f"{url} {given or ''}"] = texts
    return page


def of_model(model: Any, page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def look_at_nothing(found: Found, client: Any) -> None:
    """Look at lists that have no row yet."""
    for model in (AuditEvent, AuditCheckpoint, TrailJob, StoredClaim, LegalHold):
        look(found, client, of_model(model))
    look(found, client, f"{of_model(StoredClaim)}?q=unknown")
    look(found, client, of_model(StoredClaim, "report"))
    look(found, client, reverse("admin:index"))


def look_at_rows(found: Found, client: Any) -> None:
    """Look at each model's list, the page of each of its rows, and what Django knows of it."""
    look(found, client, reverse("admin:index"))
    for label in sorted({model._meta.app_label for model in admin.site._registry}):
        if is_own_label(label):
            look(found, client, reverse("admin:app_list", args=[label]))
    for model, pages in admin.site._registry.items():
        if not is_own_label(model._meta.app_label):
            continue
        look(found, client, of_model(model))
        if model is SinkCursor:
            continue
        assert model._default_manager.exists(), model
        for row in model._default_manager.order_by("pk")[: 3 if model in ALIKE else None]:
            if model is not TrailJob or row.kind == TrailJob.VERIFICATION or row.asked_by == str(client.user.pk):
                look(found, client, of_model(model, "change", row.pk))
        if not hasattr(pages, "build_urls"):
            look(found, client, of_model(model, "history", row.pk))
    look(found, client, of_model(StoredClaim, "report"))


def act(found: Found, client: Any, model: Any, action: str, rows: Any, **given: Any) -> Any:
    """Look at the confirmation of the action, and at its result."""
    chosen = {"action": action, "_selected_action": [row.pk for row in rows], **given}
    look(found, client, of_model(model), chosen)
    return look(found, client, of_model(model), {**chosen, "post": "yes"})


def _manage_scim_clients(found: Found, client: Any) -> None:
    url, names = of_model(SCIMClient, "add"), {"name": "1", "provider": "1"}
    for given in (None, {}, {**names, "name": WORD}, {**names, "provider": "9"}, names, names):
        look(found, client, url, *([] if given is None else [given]))
    live = SCIMClient.objects.filter(revoked_at=None).order_by("pk")
    revoked = SCIMClient.objects.exclude(revoked_at=None).order_by("pk")
    act(found, client, SCIMClient, "rotate", live[:1])
    act(found, client, SCIMClient, "rotate", live)
    act(found, client, SCIMClient, "revoke", [live[0], revoked[0]])
    act(found, client, SCIMClient, "revoke", [*live, *revoked])


def fill_in_forms(found: Found, client: Any, patient: SignedIn, settings: Any) -> None:
    """Send each form with nothing, with what is refused, and with what is good; take each action."""
    subject, user = patient.subject, patient.user
    store_claims(patient)
    for model in (PairwiseSubject, ActivationCode, LegalHold, AlertMute):
        look(found, client, of_model(model, "add"))
        look(found, client, of_model(model, "add"), {})
    held = {"subject": str(subject.uuid), "reason": WORD, "until_0": "2020-01-01", "until_1": "00:00"}
    look(found, client, of_model(LegalHold, "add"), held)
    look(found, client, of_model(LegalHold, "add"), {**held, "until_0": "", "until_1": ""})
    suspending = {**held, "until_0": "2026-12-01", "suspended_until_0": "2026-11-30", "suspended_until_1": "00:00"}
    suspending |= {"suspended_purposes": "HLEGAL", "agency": WORD, "oral_statement_at_1": "00:00"}
    for changed in (
        {"agency": ""},
        {"suspended_purposes": ""},
        {"suspended_until_0": "2020-01-01"},
        {"suspended_until_0": "2026-12-31"},
        {"oral_statement_at_0": "2026-11-25"},
        {"oral_statement_at_0": "2026-10-01"},
        {"suspended_until_0": "", "suspended_until_1": "", "oral_statement_at_1": ""},
    ):
        look(found, client, of_model(LegalHold, "add"), {"oral_statement_at_0": "2026-11-01", **suspending, **changed})
    muted = {"kind": "token_forged", "key": "9", "until_0": "2020-01-01", "until_1": "00:00", "note": WORD}
    look(found, client, of_model(AlertMute, "add"), muted)
    look(found, client, of_model(AlertMute, "add"), {**muted, "until_0": "2026-11-25"})
    linked = {"provider": "1", "user": user.pk, "sub": "248289761001"}
    for sub in ("ж", "a@example.org", "248289761001", "248289761001"):
        look(found, client, of_model(PairwiseSubject, "add"), {**linked, "sub": sub})
    look(found, client, of_model(PairwiseSubject, "add"), {**linked, "provider": "9"})
    rings = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(rings, KEYS={"subject": []})
    look(found, client, of_model(PairwiseSubject, "add"), linked)
    settings.PHI_OIDC = rings
    look(found, client, of_model(PairwiseSubject, "delete", subject.pk))
    other = PairwiseSubject.objects.exclude(pk=subject.pk).filter(user=user).get()
    look(found, client, of_model(PairwiseSubject, "delete", other.pk))
    look(found, client, of_model(PairwiseSubject, "delete", other.pk), {"post": "yes"})
    look(found, client, of_model(ActivationCode, "add"), {"provider": "1", "user": user.pk})
    codes = list(ActivationCode.objects.filter(provider="1").order_by("pk"))
    act(found, client, ActivationCode, "make_another", codes)
    act(found, client, ActivationCode, "make_another", codes[:1])
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    look(found, client, reverse("admin:phi_oidc_person", args=[user.pk]))
    act(found, client, ActivationCode, "make_another", codes[:1])
    get_user_model().objects.filter(pk=user.pk).update(is_active=True)
    ActivationCode.objects.filter(pk=codes[0].pk).update(provider="2")
    act(found, client, ActivationCode, "make_another", codes[:1])
    ActivationCode.objects.filter(pk=codes[0].pk).update(provider="9")
    act(found, client, ActivationCode, "make_another", codes[:1])
    act(found, client, ActivationCode, "revoke", codes)
    act(found, client, PendingRevocation, "retry", PendingRevocation.objects.all())
    act(found, client, StoredClaim, "erase_now", StoredClaim.objects.all())
    act(found, client, LegalHold, "release", LegalHold.objects.all())
    act(found, client, StoredClaim, "erase_now", StoredClaim.objects.all())
    act(found, client, AlertMute, "end", AlertMute.objects.all())
    act(found, client, AlertMute, "end", [])
    _manage_scim_clients(found, client)
    act(found, client, EmergencyAccess, "close_now", EmergencyAccess.objects.all())
    act(found, client, OIDCSession, "end_now", OIDCSession.objects.filter(user=user))
    act(found, client, OIDCSession, "end_now", OIDCSession.objects.exclude(user=None))
    alert = SecurityAlert.objects.filter(acknowledged_at=None).first()
    assert alert
    look(found, client, of_model(SecurityAlert, "change", alert.pk), {"note": " "})
    look(found, client, of_model(SecurityAlert, "change", alert.pk), {"note": WORD})
    emergency = EmergencyAccess.objects.filter(reviewed_at=None).first()
    assert emergency
    url, its = of_model(EmergencyAccess, "change", emergency.pk), EmergencyAccess.objects.filter(pk=emergency.pk)
    its.update(closed_at=None, close_reason="")
    look(found, client, url, {"verdict": "justified", "note": WORD})
    its.update(closed_at=NOW, close_reason="closed", actor=str(client.user.pk))
    look(found, client, url)
    its.update(actor=str(user.pk))
    look(found, client, url, {}, status=400)
    look(found, client, url, {"verdict": "justified", "note": WORD})
    look(found, client, url, {"verdict": "justified", "note": WORD})


def import_files(found: Found, client: Any, patient: SignedIn) -> None:
    """Upload files with each problem, and confirm."""
    away = get_user_model().objects.create(username=f"{WORD}-1", is_active=False)
    invited_user, linked = (get_user_model().objects.create(username=f"{WORD}-{number}") for number in (2, 3))
    rows = [patient.user, away, invited_user, invited_user]
    contents = {
        ActivationCode: ["user", "ж", "user,code", "user", *("user" + "".join(f"\npk:{user.pk}" for user in rows),)],
        PairwiseSubject: [
            "user",
            f"user,sub,provider\npk:{linked.pk},248289761009,1\npk:{linked.pk},248289761009,1\nж,1,1\n"
            f"pk:{away.pk},ж,1\npk:{patient.user.pk},248289761009,9\n1,1,1,1\npk:{away.pk},248289761009,1",
        ],
    }
    for model, files in contents.items():
        url = of_model(model, "import")
        look(found, client, url)
        look(found, client, url, {}, status=400)
        look(found, client, url, {"pending": "1"})
        for text in files:
            file = SimpleUploadedFile("1.csv", text.encode())
            is_shown = "\n" in text
            page = look(found, client, url, {"provider": "1", "file": file}, status=200 if is_shown else 400)
            if pending := re.search(r'name="pending" value="([^"]+)"', page.content.decode()):
                for _ in range(2):
                    look(found, client, url, {"pending": pending[1]})
    look(found, client, of_model(ActivationCode, "codes"), {"codes": "1"})


def verify_files(found: Found, client: Any) -> None:
    """Verify a file of other lines, and none."""
    url = of_model(TrailJob, "file")
    look(found, client, url)
    look(found, client, url, {})
    look(found, client, url, {"file": SimpleUploadedFile("1.jsonl", b"{}\n1\n")})


def end_in_bulk(found: Found, client: Any, patient: SignedIn) -> None:
    url = of_model(SessionEndJob, "add")
    for query in ("", "?provider=", "?provider=9", f"?user={patient.user.pk}", f"?user={client.user.pk}"):
        look(found, client, url + query)
    look(found, client, url, {"user": patient.user.pk})
    own = {"user": client.user.pk, "include_own": "on"}
    look(found, client, f"{url}?user={client.user.pk}&include_own=on")
    look(found, client, url, {**own, "reason": "incident", "people": 2})


def look_at_the_trail(found: Found, client: Any) -> None:
    """Ask the trail's pages for what they can't show, and for what they can."""
    trail, jobs = of_model(AuditEvent), of_model(TrailJob)
    wrong = "?action=x&outcome=9&since=9&until=9&actor=" + "9" * 300
    unsealed = AuditUnsealed.objects.latest("pk").pk
    both = f"?before={unsealed}&after={unsealed}"
    person = f"{client.user.pk},{uuid.UUID(int=7)}"
    queries = (f"?person={person}", f"?person={person}&search=7", "?routine=show", "?before=9", both)
    for query in (wrong, *queries, "?actor=77", "?on_behalf_of=77", "?outcome=failure"):
        look(found, client, trail + query)
    look(found, client, of_model(AuditCheckpoint) + "?before=0")
    look(found, client, of_model(AuditEvent, "proof", unsealed))
    for wanted in ("9", "csv"):
        look(found, client, f"{jobs}export/", {"format": wanted})
    look(found, client, f"{jobs}verify/", {})
    AuditUnsealed.objects.filter(event_id=unsealed).update(refused=True)
    look(found, client, of_model(AuditEvent, "change", unsealed))
    reference = reverse("admin:phi_oidc_reference")
    refused = AuditEvent.objects.filter(action="login.refused").latest("pk").pk
    for entered in (refused, unsealed, "9hYp2cJq4bXw6TzA", "9", ""):
        look(found, client, f"{reference}?reference={entered}")
    look(found, client, reference)
    (done,) = TrailJob.objects.filter(kind=TrailJob.EXPORT, state=TrailJob.DONE, attempts=0)
    look(found, client, f"{jobs}{done.pk}/download/", {})
    origin = Origin(actor="7", on_behalf_of="8")
    (delegated,) = events(1, action=Action.ACCESS_GRANTED, subject="", detail={}, origin=origin)
    look(found, client, trail)
    look(found, client, of_model(AuditEvent, "change", delegated))


def look_at_the_witnesses(found: Found, client: Any, settings: Any) -> None:
    """Look at a checkpoint of which a witness has no cosignature."""
    before, size = settings.PHI_OIDC, AuditCheckpoint.objects.latest("tree_size").tree_size
    key = encode_witness_key(WitnessKey("1", KEY.public_key()))
    settings.PHI_OIDC = override_phi_oidc(before, AUDIT={"witnesses": {"1": {"key": key, "url": "https://1.example"}}})
    look(found, client, of_model(AuditCheckpoint, "change", size))
    settings.PHI_OIDC = before


def look_at_deliveries(found: Found, client: Any, settings: Any) -> None:
    """Look at a sink in each state and with each fault, request a delivery, and look at the overview."""
    before = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(before, SIEM={"1": {"type": "file", "path": "/nowhere/1"}})
    page, old = of_model(SinkCursor), NOW - timedelta(days=2)
    size = AuditCheckpoint.objects.latest("tree_size").tree_size
    sealed_at = AuditCheckpoint.objects.earliest("tree_size").sealed_at
    failed = {"attempts": 2, "due_at": NOW + timedelta(hours=1), "failing_since": old}
    caught_up = {"due_at": NOW, "attempts": 0, "last_fault": "", "tree_size": size, "checkpoint_size": size}
    states = [
        *({**failed, "last_fault": fault} for fault in FAULT_TEXTS),
        *({**failed, "last_fault": f"http_{status}"} for status in (302, 400, 401, 403, 404, 413, 429, 503)),
        {**failed, "last_fault": "a_fault"},
        {**failed, "due_at": old, "last_fault": "http_503"},
        {"due_at": NOW, "attempts": 0, "last_fault": "", "tree_size": 0, "checkpoint_size": 0},
        {**caught_up, "failing_since": None},
        {**caught_up, "delivered_at": NOW},
    ]
    for fields in states:
        SinkCursor.objects.update_or_create(name="1", defaults=fields)
        look(found, client, page)
        look(found, client, reverse("admin:index"))
    for form in (None, {}):
        look(found, client, of_model(SinkCursor, "deliver", "1"), form)
    sinks = {
        "1": {"type": "file", "path": "/nowhere/1", "lag_alert": timedelta(days=9)},
        "2": {"type": "syslog", "host": "siem.example", "lag_alert": timedelta(days=9)},
        "3": {"type": "https", "url": "https://siem.example/"},
    }
    settings.PHI_OIDC = override_phi_oidc(before, SIEM=sinks)
    for name in sinks:
        SinkCursor.objects.update_or_create(name=name, defaults={**caught_up, "failing_since": None})
    SinkCursor.objects.filter(name="1").update(tree_size=0, checkpoint_size=0)
    with clock.override_clock(lambda: sealed_at + timedelta(seconds=1)):
        look(found, client, page)
    look(found, client, page)
    look(found, client, reverse("admin:index"))
    settings.PHI_OIDC = before
    SinkCursor.objects.all().delete()


def look_at_overviews(found: Found, client: Any) -> None:
    """Look at each period, before and after counting, and at each result of the comparison."""
    HourlyCount.objects.all().delete()
    look(found, client, reverse("admin:index"))
    fill_month(NOW)
    for outcome, detail in (("failure", {"findings": 1}), ("failure", {"findings": 2}), ("error", {})):
        verified: dict[str, Any] = {"action": Action.AUDIT_VERIFIED, "outcome": outcome, "detail": detail}
        events(1, **verified, origin=Origin(), subject="", purpose="", at=NOW)
        look(found, client, reverse("admin:index"))
    for period in PERIODS:
        look(found, client, f"{reverse('admin:index')}?period={period}")
    HourlyCount.objects.filter(series="refusals").update(count=1)
    look(found, client, reverse("admin:index"))
    yesterday = HourlyCount.objects.filter(day=NOW.date() - timedelta(days=1), label="")
    for count in (0, 1000):
        yesterday.update(count=count)
        HourlyCount.objects.filter(day=yesterday[0].day).exclude(label="").update(count=count)
        look(found, client, reverse("admin:index"))
    HourlyCount.objects.filter(day=NOW.date() - timedelta(days=8)).update(count=100)
    for weeks in (2, 3, 4):
        HourlyCount.objects.filter(day=NOW.date() - timedelta(days=1 + 7 * weeks)).delete()
    look(found, client, reverse("admin:index"))


def look_at_the_person(found: Found, client: Any, patient: SignedIn) -> None:
    """Look at the person's page, and do all that may be done about them, with and without what it asks for."""
    url = reverse("admin:phi_oidc_person", args=[patient.user.pk])
    look(found, client, reverse("admin:phi_oidc_person_search") + "?q=0")
    look(found, client, reverse("admin:phi_oidc_person_search") + f"?q={uuid.UUID(int=7)}")
    invited(patient.user)
    hold = LegalHold.objects.filter(released_at=None).get()
    given: dict[str, Any] = {
        "export": EXPORT,
        "invite": {"chosen": "1"},
        # Of the code that was made just before.
        "withdraw": lambda: {"chosen": str(ActivationCode.objects.latest("pk").pk)},
        "disclose": {"chosen": str(patient.subject.uuid)},
        "reveal": {"chosen": NAME, "purpose": "HOPERAT", "reason": "complaint"},
        "hold": {"chosen": str(patient.subject.uuid), "reason": WORD},
        "release": {"chosen": [str(hold.pk)]},
        "scrub": {},
        "end": {"chosen": [str(patient.session.pk)]},
        "close": {"chosen": [str(EmergencyAccess.objects.get(closed_at=None).pk)]},
    }
    assert set(given) == set(get_person_actions())
    look(found, client, url)
    for name, form in given.items():
        look(found, client, f"{url}{name}/")
        if form:
            look(found, client, f"{url}{name}/", {}, status=400)
    look(found, client, f"{url}reveal/", {**given["reveal"], "purpose": "TREAT"}, status=403)
    late = {**given["hold"], "until": "2020-01-01 00:00"}
    look(found, client, f"{url}hold/", late, status=400)
    look(found, client, f"{url}scrub/", {}, status=409)
    for name, form in given.items():
        if name == "scrub":
            LegalHold.objects.update(released_at=NOW)
            PairwiseSubject.objects.update(held_until=None)
            StoredClaim.objects.update(held_until=None)
        look(found, client, f"{url}{name}/", form() if callable(form) else form)
    for name in given:
        look(found, client, f"{url}{name}/")
    look(found, client, url)


def look_at_what_is_away(found: Found, client: Any, patient: SignedIn) -> None:
    """Look while the trail can't be reached: at its pages, and at those of which a part is its."""
    emergency = EmergencyAccess.objects.filter(user=patient.user).first()
    assert emergency
    person = reverse("admin:phi_oidc_person", args=[patient.user.pk])
    with audit_database_fails():
        for url, status in (
            (of_model(AuditEvent), 503),
            (of_model(EmergencyAccess, "change", emergency.pk), 503),
            (person, 200),
            (reverse("admin:index"), 200),
        ):
            look(found, client, url, status=status)
        look(found, client, f"{person}export/", EXPORT, status=503)


def look_at_what_is_altered(found: Found, client: Any, patient: SignedIn) -> None:
    """Look where an event can be none any more: by the list, by the person, by an emergency."""
    emergency = EmergencyAccess.objects.filter(user=patient.user).first()
    assert emergency
    last = AuditEvent.objects.filter(actor=str(client.user.pk)).latest("pk")
    with without_triggers():
        time = "infinity" if is_postgresql() else "2026-13-01 00:00:00"
        sql(f"UPDATE {EVENT} SET occurred_at = %s, actor = %s", time, str(patient.user.pk))
    for url in (
        of_model(AuditEvent),
        of_model(AuditEvent, "change", last.pk),
        of_model(EmergencyAccess, "change", emergency.pk),
        reverse("admin:phi_oidc_person", args=[patient.user.pk]),
        reverse("admin:index"),
    ):
        look(found, client, url)


def look_at_the_archives(found: Found, client: Any) -> None:
    """Request the pages that search for an event that is only in an archive. The file does not exist here."""
    id_ = uuid.UUID(int=AuditEvent.objects.earliest("pk").pk.int - (1 << 80))
    fields = {"name": WORD, "first_leaf": 0, "tree_size": 1, "first_id": id_, "last_id": id_}
    ArchiveFile.objects.create(sha256="0" * 64, **fields)
    look(found, client, f"{of_model(AuditEvent)}?search={id_}")
    look(found, client, of_model(AuditEvent, "change", id_))
    look(found, client, f"{reverse('admin:phi_oidc_reference')}?reference={id_}")
