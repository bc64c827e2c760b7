"""Visits to the pages for people who are not staff; some templates are rendered alone."""

from itertools import product

from django.template import engines
from django.template.loader import render_to_string

from django_phi_oidc.access.emergency.models import EmergencyAccess
from django_phi_oidc.login.failure_texts import FAILURE_TEXTS
from tests.docs.translation.admin_pages import DATA, Found, look
from tests.docs.translation.portal_rows import PERMISSION, WORD
from tests.docs.translation.pseudo_translation import untranslated
from tests.support.audit_outage import audit_database_fails
from tests.support.emergency_access import allow
from tests.support.session_fixtures import SecureClient, SignedIn

OURS = "django_phi_oidc"
TAGS = "{% load phi_oidc %}{% phi_oidc_session %}{% phi_oidc_emergency %}"
FLAGS: dict[str, tuple[str, ...]] = {
    f"{OURS}/unavailable.html": ("home_url", "choose_url"),
    f"{OURS}/activate.html": (
        *("is_open", "is_wrong", "is_guessing", "is_unavailable", "label", "authenticated_at", "reference"),
    ),
    f"{OURS}/end_session.html": ("url", "needs_click", "is_unavailable"),
    f"{OURS}/local_account.html": ("emergency_url",),
    f"{OURS}/logged_out.html": ("signed_in", "expired", "at_provider"),
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
