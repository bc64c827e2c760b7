"""The how-to page on revealing claims: its code works as described."""

import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.claims.categories import get_category_permission
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.config.claims import parse_claim
from django_phi_oidc.fields import MASK
from tests.support.claims_fixtures import DAY, NOW, Person, _declared, make_person, person  # noqa: F401 -- fixtures
from tests.support.session_fixtures import SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "reveal-claims.md").read_text()
LANGUAGES = {"python": ("one", "many", "template", "page"), "html": ("chart.html", "details.html")}


def get_code_block(name: str) -> str:
    match = re.search(rf"<!-- tested: {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert match, name
    return match[1]


def test_g8_categories_on_the_page_are_valid_and_have_these_permissions() -> None:
    declared: dict[str, Any] = {}
    exec(get_code_block("categories"), {"PHI_OIDC": declared, "timedelta": timedelta})
    claims = [parse_claim(name, raw) for name, raw in declared["CLAIMS"].items()]
    permissions = [get_category_permission(claim.category).partition(".")[2] for claim in claims]
    assert permissions == ["reveal_storedclaim_contact", "reveal_storedclaim_billing", "reveal_storedclaim"]
    assert all(f"`{permission}`" in PAGE for permission in permissions)


@pytest.fixture(autouse=True)
def _hospital(settings: Any) -> Iterator[None]:
    """Serve the page's views, each for the patient whose key is in the URL."""
    hospital = ModuleType("hospital")
    exec("\n".join(map(get_code_block, LANGUAGES["python"])), vars(hospital))
    users = get_user_model()._default_manager

    def for_patient(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        return lambda request, pk: view(request, users.get(pk=pk))

    def envelopes(request: HttpRequest) -> HttpResponse:
        return hospital.envelopes(request, users.order_by("pk"))  # type: ignore[no-any-return]

    vars(hospital)["urlpatterns"] = [
        path("letter/<int:pk>/", for_patient(hospital.letter)),
        path("chart/<int:pk>/", for_patient(hospital.chart)),
        path("envelopes/", envelopes),
        path("details/", hospital.Details.as_view()),
    ]
    sys.modules["hospital"] = hospital
    loader = ("django.template.loaders.locmem.Loader", {name: get_code_block(name) for name in LANGUAGES["html"]})
    options = {**settings.TEMPLATES[0]["OPTIONS"], "loaders": [loader]}
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": options}]
    settings.ROOT_URLCONF = "hospital"
    with clock.override_clock(lambda: NOW):
        yield
    del sys.modules["hospital"]


@pytest.fixture
def clinician(sign_in: Callable[[], SignedIn]) -> SignedIn:
    signed_in = sign_in()
    signed_in.user.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim"))
    StoredClaim.objects.filter(subject=signed_in.subject, name="address").delete()
    return signed_in


def test_code_for_one_claim_works(clinician: SignedIn, person: Person) -> None:
    client, path = clinician.client(), f"/letter/{person.user.pk}/"
    assert client.get(path).content == b"To: address unknown"
    person.store({"address": {"country": "SE"}})
    page = client.get(path)
    assert (page.content, page["Cache-Control"]) == (b"To: SE", "no-store")
    StoredClaim.objects.filter(name="address").update(expires_at=NOW)
    assert client.get(path).status_code == 410
    clinician.user.user_permissions.clear()
    assert client.get(path).status_code == 403


def test_code_for_a_list_works(
    clinician: SignedIn,
    person: Person,
    make_person: Callable[..., Person],
) -> None:
    person.store({"address": {"country": "SE"}})
    others = [make_person() for _ in range(2)]
    others[0].store({"address": {"country": "NO"}}, now=NOW - DAY)
    others[1].store({"address": {"country": "FI"}})
    rows = StoredClaim.objects.filter(name="address")
    rows.filter(subject=others[1].subject).update(value=rows.get(subject=person.subject).value)
    page = clinician.client().get("/envelopes/")
    assert page.content.decode().splitlines() == ["none", "SE", "erased", "not permitted"]
    assert AuditEvent.objects.filter(action="claim.revealed").count() == 4


def test_code_for_a_template_works(sign_in: Callable[[], SignedIn]) -> None:
    patient = sign_in()
    client, path = patient.client(), f"/chart/{patient.user.pk}/"
    masked = client.get(path)
    assert f"<p>Born on {MASK}, stored for identity check</p>" in masked.content.decode()
    assert "no-store" not in masked.get("Cache-Control", "")
    assert "<p>Born on a value</p>" in client.post(path, {"purpose": "TREAT"}).content.decode()
    assert "<p>Not for this purpose</p>" in client.post(path, {"purpose": "HMARKT"}).content.decode()
    assert AuditEvent.objects.filter(action="claim.revealed").count() == 1


def test_code_for_a_page_with_a_purpose_works(sign_in: Callable[[], SignedIn]) -> None:
    client = sign_in().client()
    page = client.get("/details/").content.decode()
    assert (page.count(MASK), page.count("a value")) == (2, 0)
    page = client.post("/details/", {"purpose": "TREAT"}).content.decode()
    assert (page.count(MASK), page.count("a value")) == (1, 1)
    assert "birthdate, for TREAT" in page
    statuses = [client.post("/details/", {"purpose": purpose}).status_code for purpose in ("", "HMARKT")]
    assert statuses == [400, 403]
