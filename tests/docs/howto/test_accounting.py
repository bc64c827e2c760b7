"""The how-to page on the accounting of disclosures: its command and its code work as documented."""

import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.urls import path

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action
from django_phi_oidc.contrib.individual_rights.recipients import remember_recipient
from tests.support.claims_fixtures import NOW
from tests.support.disclosure_events import DAY, look, reveal
from tests.support.session_fixtures import (
    SignedIn,
    sign_in,  # noqa: F401 -- fixtures
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "privacy-requests.md").read_text()
EMERGENCY = "5b0c3c52-9a8e-4f7d-8c61-2d5e7a9b1c34"


def block(name: str) -> str:
    match = re.search(rf"<!-- tested: {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert match, name
    return match[1]


@pytest.fixture(autouse=True)
def _clinic(settings: Any) -> Iterator[None]:
    clinic = ModuleType("clinic")
    exec(block("resources") + block("page"), vars(clinic))
    vars(clinic)["urlpatterns"] = [path("looked/", vars(clinic)["WhoLooked"].as_view())]
    sys.modules["clinic"] = clinic
    loader = ("django.template.loaders.locmem.Loader", {"who_looked.html": block("who_looked.html")})
    options = {**settings.TEMPLATES[0]["OPTIONS"], "loaders": [loader]}
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": options}]
    settings.ROOT_URLCONF = "clinic"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PATIENT_RESOURCES": "clinic.resources_of"}
    with clock.override_clock(lambda: NOW):
        yield
    del sys.modules["clinic"]


@pytest.fixture
def person(sign_in: Callable[[], SignedIn]) -> SignedIn:
    return sign_in()


def test_command_prints_the_disclosures_of_the_page(person: SignedIn) -> None:
    users, pk = get_user_model()._default_manager, person.user.pk
    ada, nameless = users.create_user("ada", first_name="Ada", last_name="Berg"), users.create_user("nameless")
    ada.groups.add(Group.objects.create(name="nurses"))
    remember_recipient(ada, now=NOW - DAY)
    look(by=ada.pk, resource=f"Patient/{pk}", at=datetime(2026, 11, 24, 9, 30, tzinfo=UTC))
    look(
        by=nameless.pk,
        resource=f"Patient/{pk}",
        purpose="ETREAT",
        detail={"emergency": EMERGENCY},
        at=datetime(2026, 11, 23, 22, 10, tzinfo=UTC),
    )
    look(
        by="os:amina@portal-1",
        action=Action.SUBJECT_EXPORTED,
        subject=str(person.subject.uuid),
        purpose="PATRQT",
        detail={"claims": ["address", "birthdate"]},
        at=NOW - 4 * DAY,
    )
    command, _, printed = block("accounting").removeprefix("$ ").partition("\n")
    here = {"Patient/42": f"Patient/{pk}", "(7)": f"({ada.pk})", "(8)": f"({nameless.pk})"}
    for documented, actual in here.items():
        printed = printed.replace(documented, actual)
    out = io.StringIO()
    call_command(*shlex.split(command.replace("pk:42", f"pk:{pk}"))[2:], stdout=out)
    assert out.getvalue() == printed


def test_documented_page_displays_disclosures(person: SignedIn) -> None:
    client = person.client()
    assert "No disclosures since Nov. 24, 2020." in client.get("/looked/").content.decode()
    ada: Any = get_user_model()._default_manager.create_user("ada", first_name="Ada")
    ada.groups.add(Group.objects.create(name="nurses"))
    remember_recipient(ada, now=NOW)
    reveal(person.subject.uuid, by=ada.pk)
    look(resource=f"Patient/{person.user.pk}", at=NOW - DAY)
    page = unescape(client.get("/looked/").content.decode())
    assert page.count("<li>") == 2
    assert "Ada, nurses, for treatment: birthdate" in page
    assert f"a member of staff, for treatment:  Patient/{person.user.pk}" in page
    assert page.count("<a ") == 1
