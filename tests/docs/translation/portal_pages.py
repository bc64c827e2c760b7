"""Visits to the pages for people who are not staff; some templates are rendered alone."""

from itertools import product
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import Group, Permission
from django.template import engines
from django.template.loader import render_to_string

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.request_context import ASSURANCE_KEY, build_assurance_entry
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.monitoring.models import AlertMute
from django_phi_oidc.login.failure_texts import FAILURE_TEXTS
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.sessions.sign_in_places import SignInPlace, get_device_label
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.docs.translation.admin_pages import DATA, Found, look, of_model
from tests.docs.translation.portal_rows import PERMISSION, WORD
from tests.docs.translation.pseudo_translation import untranslated
from tests.support.audit_outage import audit_database_fails
from tests.support.emergency_access import allow
from tests.support.session_fixtures import SecureClient, SignedIn

OURS = "django_phi_oidc"
TAGS = "{% load phi_oidc phi_oidc_emergency %}{% phi_oidc_session %}{% phi_oidc_emergency %}"
FLAGS: dict[str, tuple[str, ...]] = {
    f"{OURS}/unavailable.html": ("home_url", "choose_url"),
    f"{OURS}/activate.html": (
        *("is_open", "is_wrong", "is_guessing", "is_unavailable", "label", "authenticated_at", "reference"),
    ),
    f"{OURS}/end_session.html": ("url", "needs_click", "is_unavailable", "home_url"),
    "phi_oidc_local_accounts/local_account.html": ("emergency_url",),
    f"{OURS}/logged_out.html": ("signed_in", "expired", "at_provider", "home_url"),
    f"{OURS}/signed_in.html": ("signed_in", "start_url", "is_debug", "is_unset", "can_grant"),
    **dict.fromkeys((f"{OURS}/{name}.html" for name in ("leak_blocked", "trail_unavailable", "step_up")), ()),
}
"""What each template asks whether it is so."""


def look_at_templates(found: Found) -> None:
    """Render each, with all that may be so or not."""
    for name, flags in FLAGS.items():
        for each in product(("", WORD), repeat=len(flags)):
            page = render_to_string(name, {"restart_url": "/", "reference": "7", **dict(zip(flags, each, strict=True))})
            assert "</html>" in page
            if texts := untranslated(page, data=DATA):
                found[f"{name} {each}"] = texts
    for kind, text in FAILURE_TEXTS.items():
        for home_url, choose_url in product(("", WORD), repeat=2):
            context = {"restart_url": "/", "reference": "7", "home_url": home_url, "choose_url": choose_url}
            page = render_to_string(f"{OURS}/login_failed.html", {**context, "page": kind, "text": text})
            assert str(text.title) in page
            if texts := untranslated(page, data=DATA):
                found[f"login_failed.html {kind}"] = texts


def sign_in_pages(found: Found) -> None:
    """Visit the pages of an anonymous user."""
    client = SecureClient()
    look(found, client, "/oidc/authenticate/")
    look(found, client, "/oidc/callback/?state=9", status=403)
    look(found, client, "/oidc/activate/")
    look(found, client, "/oidc/local-login/")
    look(found, client, "/oidc/local-login/", {"username": "7", "password": "7"}, status=403)
    look(found, client, "/oidc/logged-out/?expired=1")


def own_pages(found: Found, person: SignedIn) -> None:
    """Visit the person's own record, details and disclosures, with and without a purpose and an audit log."""
    client = person.client()
    look(found, client, "/oidc/logged-out/")
    look(found, client, "/oidc/2/authenticate/")
    for query in ("", "?all=1"):
        look(found, client, f"/record/{query}")
    look(found, client, "/details/")
    for purpose, status in (("", 400), ("HMARKT", 403), ("PATRQT", 200)):
        look(found, client, "/details/", {"purpose": purpose}, status=status)
    with audit_database_fails():
        look(found, client, "/details/", {"purpose": "PATRQT"}, status=503)
        look(found, client, "/record/", status=503)


def refusal_pages(found: Found, person: SignedIn) -> None:
    """Request pages without staff status, without permission, of rows that do not exist, and without the audit log."""
    client, holds = person.client(), of_model(LegalHold)
    look(found, client, "/chart/999999/?purpose=TREAT", status=403)
    look(found, client, "/admin/", status=403)
    user: Any = person.user
    user.is_staff = True
    user.save()
    look(found, client, holds, status=403)
    viewing = Permission.objects.get(codename="view_legalhold")
    Group.objects.create(name="7").permissions.add(viewing)
    look(found, client, holds, status=403)
    for model, page in ((LegalHold, "add"), (StoredClaim, "add"), (AlertMute, "add")):
        look(found, client, of_model(model, page), status=403)
    look(found, client, of_model(PairwiseSubject, "delete", PairwiseSubject.objects.latest("pk").pk), status=403)
    user.user_permissions.add(viewing)
    look(found, client, holds, {"action": "release", "_selected_action": [7]}, status=403)
    allow(user, "view_emergencyaccess")
    unknown = "01a20f04-df0d-7d9d-af57-46f39850d3be"
    look(found, client, of_model(EmergencyAccess, "change", unknown), status=404)
    with audit_database_fails():
        look(found, client, of_model(EmergencyAccess, "change", EmergencyAccess.objects.latest("pk").pk), status=503)


def account_pages(found: Found, person: SignedIn) -> None:
    """Visit the pages of the person's own account, with a session elsewhere; render what depends on the rows."""
    place = SignInPlace(browser=WORD, platform=WORD, network="192.0.2.0/24")
    client, session = person.client(), person.client().session
    session[ASSURANCE_KEY] = build_assurance_entry(acr="", auth_time=clock.now())
    session.save()
    other = uuid4()
    fields: Any = {"user": person.user, "subject": person.subject, "provider": "1", "issuer": "https://op"}
    OIDCSession.objects.create(id=other, started_at=clock.now(), last_seen_at=clock.now(), **fields, **place._asdict())
    for path in ("", f"sessions/{other}/end/", "sessions/end/", "export/", "disclosures/", "disclosures/?all=1"):
        look(found, client, f"/oidc/account/{path}")
    look(found, client, f"/oidc/account/sessions/{other}/end/", {})
    look(found, client, "/oidc/account/sessions/end/", {})
    claims = [
        {"label": WORD, "purpose_label": WORD, "kept_until": until, "is_held": is_held, "is_expired": is_expired}
        for until, is_held, is_expired in product((None, clock.now()), (False, True), (False, True))
    ]
    sessions = [{"id": other, "device": WORD, "provider": WORD, "network": network} for network in ("", "192.0.2.0/24")]
    looks = {"since": clock.now(), "begins_at": clock.now(), "newer": "?1", "older": "?2"}
    disclosure = {"occurred_at": clock.now(), "emergency": WORD, "resource": WORD}
    shown = {"disclosures": [{"actor_name": WORD, "purpose": WORD, "disclosure": disclosure}]}
    for name, context in (
        ("account", {"sessions": sessions, "claims": claims}),
        ("account", {}),
        ("account_disclosures", looks),
        ("account_disclosures", {**looks, **shown}),
        ("account_disclosures", {"since": clock.now()}),
    ):
        if texts := untranslated(render_to_string(f"phi_oidc_individual_rights/{name}.html", context), data=DATA):
            found[f"{name} {context}"] = texts
    assert [get_device_label(*names) for names in ((WORD, WORD), ("", ""))]


def emergency_pages(found: Found, person: SignedIn) -> None:
    """Open emergency access: wrongly, without what it takes, and well; look at the page and the banner then."""
    url, client = "/oidc/emergency/", person.client()
    given = {"resource": "Patient/7", "permissions": [PERMISSION], "purpose": "ETREAT", "reason": WORD, "minutes": "30"}
    allow(person.user, "open_emergencyaccess")
    look(found, client, url)
    look(found, client, url, {}, status=400)
    look(found, client, url, {**given, "resource": "7", "minutes": "9999"}, status=400)
    look(found, client, url, {**given, "resource": "*"}, status=403)
    user = allow(person.user, "open_emergencyaccess_everywhere")
    look(found, client, url)
    for resource in ("*", "Patient/7"):
        look(found, client, url, {**given, "resource": resource})
    assert EmergencyAccess.objects.filter(actor=str(user.pk), closed_at=None).count() == 2
    page = client.get(url)
    banner = engines["django"].from_string(TAGS).render({}, page.wsgi_request)
    assert "data-idle-text" in banner
    if texts := untranslated(banner, data=DATA):
        found["banner"] = texts
