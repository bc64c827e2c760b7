"""`make screenshots`: the pictures in the README, of the example as it runs just then."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.integration.example_project.conftest import serving
from tests.integration.example_project.served_portal import PASSWORDS, Site
from tests.support.external_tools import CHROMIUM, PARTS

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
SIZE = {"width": 1280, "height": 800}
PROMOTE = """
from django.contrib.auth.models import Group, User
for name in ("Privacy officer", "Security officer"):
    User.objects.get(groups__name="Privacy officers").groups.add(Group.objects.get(name=name))
"""


def sign_in(page: Any, username: str) -> None:
    page.fill("#username", username)
    page.fill("#password", PASSWORDS[username])
    page.click("button[value=sign-in]")
    page.wait_for_load_state()


def take(page: Any, name: str) -> None:
    page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")
    print(f"docs/images/{name}.png")


def manage(site: Site, *words: str) -> None:
    environ = {"DJANGO_DEBUG": "1", "PORTAL_VAR_DIR": str(site.var), "OIDC_ISSUER": site.provider}
    manage_py = Path(__file__).resolve().parents[2] / "example_project" / "manage.py"
    subprocess.run([sys.executable, manage_py, *words], env={**os.environ, **environ}, check=True, capture_output=True)


def main() -> None:
    """Go through the portal as a patient, a clinician and the privacy officer."""
    IMAGES.mkdir(exist_ok=True)
    # On a file system of its own: the portal of the demo is not touched.
    with tempfile.TemporaryDirectory() as var, serving(Path(var)) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PARTS["browser"]().where, args=[*CHROMIUM])
        patient, clinician, officer = (browser.new_context(viewport=SIZE).new_page() for _ in range(3))
        patient.goto(f"{site.portal}/portal/profile/")
        sign_in(patient, "amina")
        patient.click("text=Show my details")
        take(patient, "portal-details")
        patient.goto(f"{site.portal}/portal/chart/")
        sign_in(patient, "amina")
        pk = patient.get_attribute("body", "data-user")
        clinician.goto(f"{site.portal}/portal/chart/{pk}/")
        sign_in(clinician, "lena")
        clinician.click("text=This is an emergency")
        clinician.fill("textarea", "Unconscious. Is there an allergy?")
        clinician.click("text=Open emergency access")
        sign_in(clinician, "lena")
        take(clinician, "portal-emergency")
        officer.goto(f"{site.portal}/portal/")
        sign_in(officer, "otto")
        manage(site, "phi_oidc", "groups")
        manage(site, "shell", "--command", PROMOTE)
        manage(site, "phi_oidc", "audit", "seal")
        manage(site, "phi_oidc", "audit", "verify")
        officer.goto(f"{site.portal}/admin/")
        take(officer, "desk")
        officer.goto(f"{site.portal}/admin/django_phi_oidc/person/{pk}/")
        take(officer, "person")
        browser.close()


if __name__ == "__main__":
    main()
