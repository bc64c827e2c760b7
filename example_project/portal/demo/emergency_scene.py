"""What happens when somebody who may not look must: the glass is broken, closed again, and looked at afterwards."""

from typing import Any

from django_phi_oidc.access.emergency.models import EmergencyAccess
from django_phi_oidc.sessions.models import OIDCSession

from .browser import Browser
from .scene import NotHeld, Scene, eventually, expect

REASON = "Unconscious, brought in by ambulance. Is there an allergy?"


def broken(scene: Scene) -> str:
    """A clinician who does not treat Amina opens her chart all the same, by an emergency, and closes it."""
    amina = OIDCSession.objects.earliest("started_at").user_id
    chart = f"/portal/chart/{amina}/"
    lena = Browser()
    page = scene.authenticate(lena, scene.lena, hold=False, path=chart)
    expect(page.status == 403 and "data-chart=" not in page.text, f"the chart answered {page.status}")
    form = lena.open(f"{scene.portal}/oidc/emergency/?resource=Patient/{amina}&next={chart}")
    expect(form.status == 200, f"the emergency's page answered {form.status}")
    given = {"resource": f"Patient/{amina}", "permissions": "portal.view_chart", "purpose": "ETREAT", "minutes": "10"}
    login = lena.submit(form, {**given, "reason": REASON}, action="/oidc/emergency/")
    page = lena.submit(login, scene.answer(scene.lena))
    expect(page.status == 200 and page.path == chart and "data-chart=" in page.text, "the chart stayed closed")
    expect("phi-oidc-emergency" in page.text, "no banner says that an emergency is open")
    over = lena.submit(lena.open(f"{scene.portal}/oidc/emergency/"), {}, action="/close/")
    expect("phi-oidc-emergency" not in over.text, "it is still open")
    expect(lena.open(scene.portal + chart).status == 403, "the chart is open after the end")
    looks = scene.browser.open(f"{scene.portal}/portal/access/").text
    expect("Emergency" in looks, "Amina is not told of it")
    eventually(lambda: EmergencyAccess.objects.exclude(alerted_at=None).exists(), "nobody was told by mail")
    return (
        "Lena does not treat Amina, and was refused. She said why, opened that chart for ten minutes, with a stronger "
        "sign-in and under a banner, and closed it: refused again. A mail went to the privacy officer; Amina sees the "
        "look."
    )


def reviewed(scene: Scene) -> str:
    """The privacy officer reads the reason and what was done, and signs."""
    row = EmergencyAccess.objects.defer("reason", "note").order_by("-opened_at").first()
    if row is None:
        raise NotHeld("no emergency was opened")
    address = f"/admin/django_phi_oidc/emergencyaccess/{row.pk}/change/"
    otto = Browser()
    page = scene.authenticate(otto, scene.otto, hold=False, path=address)
    expect(page.status == 200 and REASON in page.text, f"the page of the emergency answered {page.status}")
    verdict: dict[str, Any] = {"verdict": "justified", "note": "Admitted that night."}
    done = otto.submit(page, verdict)
    expect("The review was signed." in done.text, "the review was not taken")
    row.refresh_from_db(fields=["verdict", "reviewed_by", "actor"])
    expect(row.verdict == "justified" and row.reviewed_by != row.actor, "nobody else has signed it")
    return "Otto read Lena’s reason, and what the trail has of it, and signed: justified. She herself could not have."
