"""The steps about emergency access: opening and closing it, and the review."""

from typing import Any

from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.sessions.models import OIDCSession

from .browser import Browser
from .scene import Scene, StepFailed, expect, wait_for

REASON = "Unconscious, brought in by ambulance. Is there an allergy?"


def open_emergency_access(scene: Scene) -> str:
    """A clinician who does not treat Amina opens her chart with emergency access, and closes it."""
    amina = OIDCSession.objects.earliest("started_at").user_id
    chart = f"/portal/chart/{amina}/"
    lena = Browser()
    page = scene.authenticate(lena, scene.lena, stop_at_callback=False, path=chart)
    expect(page.status == 403 and "data-chart=" not in page.text, f"the chart returned {page.status}")
    form = lena.open(f"{scene.portal}/oidc/emergency/?resource=Patient/{amina}&next={chart}")
    expect(form.status == 200, f"the emergency access page returned {form.status}")
    fields = {"resource": f"Patient/{amina}", "permissions": "portal.view_chart", "purpose": "ETREAT", "minutes": "10"}
    login = lena.submit(form, {**fields, "reason": REASON}, action="/oidc/emergency/")
    page = lena.submit(login, scene.build_login_fields(scene.lena))
    expect(page.status == 200 and page.path == chart and "data-chart=" in page.text, "the chart was not shown")
    expect("phi-oidc-emergency" in page.text, "the page has no emergency banner")
    closed = lena.submit(lena.open(f"{scene.portal}/oidc/emergency/"), {}, action="/close/")
    expect("phi-oidc-emergency" not in closed.text, "emergency access is still open")
    expect(lena.open(scene.portal + chart).status == 403, "the chart is still shown after the end")
    disclosures = scene.browser.open(f"{scene.portal}/portal/access/").text
    expect("Emergency" in disclosures, "Amina does not see the emergency access")
    wait_for(lambda: EmergencyAccess.objects.exclude(alerted_at=None).exists(), "no mail was sent")
    return (
        "Lena does not treat Amina, so the portal refused access to the chart. She gave a reason and signed in with a "
        "second factor. The portal showed the chart for up to ten minutes, with a banner. After she closed the "
        "emergency access, the portal refused again. The privacy officer got a mail, and Amina sees the access."
    )


def review_emergency_access(scene: Scene) -> str:
    """The privacy officer reads the reason and the recorded actions, and signs the review."""
    row = EmergencyAccess.objects.defer("reason", "note").order_by("-opened_at").first()
    if row is None:
        raise StepFailed("no emergency access was opened")
    path = f"/admin/phi_oidc_emergency/emergencyaccess/{row.pk}/change/"
    otto = Browser()
    page = scene.authenticate(otto, scene.otto, stop_at_callback=False, path=path)
    expect(page.status == 200 and REASON in page.text, f"the review page returned {page.status}")
    fields: dict[str, Any] = {"verdict": "justified", "note": "Admitted that night."}
    page = otto.submit(page, fields)
    expect("The review was saved." in page.text, "the review was not accepted")
    row.refresh_from_db(fields=["verdict", "reviewed_by", "actor"])
    expect(row.verdict == "justified" and row.reviewed_by != row.actor, "the review was not signed by another user")
    return (
        "Otto read Lena’s reason and the audit events of her access, and signed the review: justified. Lena could not "
        "have reviewed her own access."
    )
