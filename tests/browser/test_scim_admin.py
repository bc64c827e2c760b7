"""SCIM clients in the admin: a token is shown once, and a revoked client has no actions."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.scim.clients import SCIMTokenRefused, authenticate_client
from tests.support.page_faults import list_accessibility_faults, list_layout_faults
from tests.support.phi_oidc_settings import override_provider

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.browser,
    pytest.mark.node,
]
LIST = "/admin/phi_oidc_scim/scimclient/"
FOLDER = os.environ.get("PHI_TEST_PICTURES", "")


@pytest.fixture(autouse=True)
def _declared(settings: Any) -> None:
    settings.PHI_OIDC = override_provider(settings.PHI_OIDC, scim={"subject": "extension"})


def look_at(page: Any, name: str) -> None:
    """Save a picture if it is wanted, and find no fault."""
    if FOLDER:
        page.screenshot(path=Path(FOLDER) / f"scim-{name}.png", full_page=True)
    assert list_layout_faults(page, width=1280, within="main") == []
    assert list_accessibility_faults(page, within="main") == []


def read_token(page: Any) -> str:
    (token,) = re.findall(r"phi_scim_[\w-]{43}", page.inner_text("main"))
    return str(token)


def act(page: Any, action: str) -> None:
    """Select the one client, and confirm the action."""
    page.goto(LIST)
    page.check(".action-select")
    page.select_option("select[name=action]", action)
    page.click("button[name=index]")
    look_at(page, f"confirm-{action}")
    page.click("main [type=submit]")


def test_client_is_created_rotated_and_revoked(superuser_page: Any) -> None:
    page = superuser_page
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{LIST}add/")
    look_at(page, "add")
    page.fill("#id_name", "hospital-directory")
    page.select_option("#id_provider", "default")
    page.click("[name=_save]")
    look_at(page, "token")
    first = read_token(page)
    assert authenticate_client(first, now=clock.now()).name == "hospital-directory"
    page.goto(LIST)
    look_at(page, "list")
    assert "phi_scim_" not in page.content()
    act(page, "rotate")
    second = read_token(page)
    assert second != first
    assert {authenticate_client(token, now=clock.now()).name for token in (first, second)} == {"hospital-directory"}
    act(page, "revoke")
    assert "1 client was revoked." in page.inner_text("body")
    assert page.query_selector("select[name=action]") is None
    for token in (first, second):
        with pytest.raises(SCIMTokenRefused):
            authenticate_client(token, now=clock.now())
