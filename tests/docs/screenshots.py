"""`make screenshots`: the pictures in the README and on the start page of the manual.

Those of the portal are of the example as it runs just then. The pages of the admin, and “Your access”, have the people
and events of tests/support/hospital.py.

`python -m tests.docs.screenshots --all FOLDER` is for reviewers: every page of the app, in each theme of the admin,
language, width and color scheme. A file `faults.txt` in each folder lists what does not fit and what is not accessible.
"""

import argparse
import base64
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.integration.example_project.conftest import serving
from tests.integration.example_project.served_portal import PASSWORDS
from tests.support.external_tools import CHROMIUM, PARTS
from tests.support.page_list import build_file_name

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
SIZE = {"width": 1280, "height": 800}
ADMIN_PAGES = {
    "dashboard": "admin:index",
    "audit-log": "admin:phi_oidc_audit_auditevent_changelist-2",
    "person": "admin:phi_oidc_person",
    "account": "oidc_account",
}
"""Name of the picture → page of tests/browser/test_every_page.py."""


def sign_in(page: Any, username: str) -> None:
    page.fill("#username", username)
    page.fill("#password", PASSWORDS[username])
    page.click("button[value=sign-in]")
    page.wait_for_load_state()


def take(page: Any, name: str) -> None:
    page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")
    print(f"docs/images/{name}.png")


def crop(page: Any, picture: Path, name: str) -> None:
    """Save the upper part of the picture of a page."""
    data = base64.b64encode(picture.read_bytes()).decode()
    page.set_content(f'<body style="margin: 0; overflow: hidden"><img src="data:image/png;base64,{data}">')
    take(page, name)


def take_all(folder: Path) -> int:
    """Save the pictures of every page, and return the number of faults."""
    count = 0
    for theme, language in itertools.product(("", "unfold"), ("en", "de")):
        pictures = folder.resolve() / f"{theme or 'plain'}-{language}"
        pictures.mkdir(parents=True, exist_ok=True)
        lines = walk(pictures, PHI_TEST_THEME=theme, PHI_TEST_LANGUAGE=language)
        print(f"{pictures}: {len(list(pictures.glob('*.png')))} pictures, {len(lines)} faults")
        count += len(lines)
    return count


def walk(pictures: Path, **environ: str) -> list[str]:
    """Save pictures of the pages in the folder, and return the faults."""
    test = [sys.executable, "-m", "pytest", "--quiet", "tests/browser/test_every_page.py"]
    environ |= {"PHI_TEST_DB": "postgresql", "PHI_TEST_PICTURES": str(pictures)}
    command = [sys.executable, "-m", "tests.support.postgresql", *test]
    done = subprocess.run(command, env={**os.environ, **environ}, check=False, capture_output=True, text=True)
    faults = pictures / "faults.txt"
    if not faults.exists():
        raise SystemExit(done.stdout)
    return faults.read_text().splitlines()


def main() -> None:
    """Take the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs.screenshots", description=__doc__)
    parser.add_argument("--all", metavar="FOLDER", type=Path, help="Take every page for reviewers, into this folder.")
    folder = parser.parse_args().all
    if folder is None:
        take_for_the_readme()
    else:
        sys.exit(take_all(folder) > 0)


def take_for_the_readme() -> None:
    """Go through the portal as a patient and a clinician, and take the pages of the admin."""
    IMAGES.mkdir(exist_ok=True)
    # On a file system of its own: the portal of the demo is not touched.
    with tempfile.TemporaryDirectory() as var, serving(Path(var)) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PARTS["browser"]().where, args=[*CHROMIUM])
        patient, clinician = (browser.new_context(viewport=SIZE).new_page() for _ in range(2))
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
        walk(Path(var), PHI_TEST_PAGES=f"^({'|'.join(ADMIN_PAGES.values())})$")
        blank = browser.new_page(viewport=SIZE)
        for name, page in ADMIN_PAGES.items():
            crop(blank, Path(var) / f"{build_file_name(page)}-1280-light.png", name)
        browser.close()


if __name__ == "__main__":
    main()
