"""The reveal page: GET shows masks, POST the parse_claims that the purpose permits."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import OperationalError, connections
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.claims.forms import PurposeForm
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.config.claims import parse_claim
from django_phi_oidc.fields import MASK
from tests.support.claims_fixtures import DECLARED, NOW
from tests.support.session_fixtures import SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.claims.urls"),
]
VALUE = "a value"
STORED = [name for name, claim in DECLARED.items() if claim["retention"] is not None]


@pytest.fixture(autouse=True)
def _portal(settings: Any) -> Iterator[None]:
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [Path(__file__).parent / "templates"]}]
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def person(sign_in: Callable[[], SignedIn]) -> SignedIn:
    """Return a person with a birthdate for TREAT and an address for HOPERAT."""
    signed_in = sign_in()
    StoredClaim.objects.filter(name="address").update(purpose="HOPERAT")
    return signed_in


def count_events() -> Counter[tuple[str, str, str]]:
    events = AuditEvent.objects.filter(action__in=["claim.revealed", "access.denied"])
    return Counter((event.action, event.purpose, json.loads(event.detail)["claim"]) for event in events)


def read_claims(page: Any) -> dict[str, str]:
    """Return the text of each claim on the page."""
    texts = re.findall(r'data-claim="(\w+)"[^>]*>([^<]*)</li>', page.content.decode())
    return dict(texts)


def list_purposes(page: Any) -> list[str]:
    return re.findall(r'type="radio" name="purpose" value="(\w*)"', page.content.decode())


def test_get_shows_masks_and_declarations_without_events(person: SignedIn) -> None:
    page = person.client().get("/details/")
    assert read_claims(page) == dict.fromkeys(STORED, MASK)
    assert 'data-basis="letters" data-purpose="HOPERAT" data-retention="1 day, 0:00:00"' in page.content.decode()
    assert list_purposes(page) == ["PATRQT", "TREAT", "HOPERAT"]
    assert " checked" not in page.content.decode()
    assert (count_events(), "no-store" in page.get("Cache-Control", "")) == (Counter(), False)


@pytest.mark.parametrize("path", ["/details/?purpose=PATRQT", "/details/?purpose=TREAT&reveal=1"])
def test_get_with_a_purpose_reveals_nothing(path: str, person: SignedIn) -> None:
    for page in (person.client().get(path), person.client().head(path)):
        assert VALUE not in page.content.decode()
    assert count_events() == Counter()


REVEALED = {
    "PATRQT": {"birthdate": VALUE, "allergies": "None", "address": VALUE},
    "TREAT": {"birthdate": VALUE, "allergies": "None", "address": MASK},
    "HOPERAT": {"birthdate": MASK, "allergies": MASK, "address": VALUE},
}


@pytest.mark.parametrize("purpose", REVEALED)
def test_post_reveals_only_the_claims_of_the_purpose(purpose: str, person: SignedIn) -> None:
    page = person.client().post("/details/", {"purpose": purpose})
    assert (page.status_code, read_claims(page)) == (200, REVEALED[purpose])
    assert f"<h1>{purpose}</h1>" in page.content.decode()
    assert page["Cache-Control"] == "no-store"
    revealed = [name for name, value in REVEALED[purpose].items() if value != MASK]
    assert count_events() == Counter(("claim.revealed", purpose, name) for name in revealed)


@pytest.mark.parametrize("purpose", ["HMARKT", "curiosity", "treat"])
def test_post_with_another_purpose_is_refused_and_recorded(purpose: str, person: SignedIn) -> None:
    page = person.client().post("/details/", {"purpose": purpose})
    assert (page.status_code, read_claims(page)) == (403, dict.fromkeys(STORED, MASK))
    assert "for this purpose" in page.content.decode()
    assert not re.search("purpose_(unknown|not_declared)", page.content.decode()), "the reason is only in the audit log"
    assert count_events() == Counter(("access.denied", purpose, name) for name in STORED)


@pytest.mark.parametrize(
    "fields", [{}, {"purpose": ""}, {"purpose": "  "}, {"purpose": "T" * 33}, {"purpose": "\0"}], ids=repr
)
def test_post_without_a_purpose_shows_the_form_without_events(fields: dict[str, str], person: SignedIn) -> None:
    page = person.client().post("/details/", fields)
    assert (page.status_code, read_claims(page)) == (400, dict.fromkeys(STORED, MASK))
    assert 'class="errorlist"' in page.content.decode()
    assert count_events() == Counter()


def test_post_without_the_audit_database_reveals_nothing(person: SignedIn) -> None:
    def fail(*args: Any) -> Any:
        raise OperationalError("the server is unavailable")

    client = person.client()
    with connections["phi_audit"].execute_wrapper(fail):
        page = client.post("/details/", {"purpose": "PATRQT"})
    assert (page.status_code, read_claims(page)) == (503, dict.fromkeys(STORED, MASK))
    assert VALUE not in page.content.decode()
    assert client.post("/details/", {"purpose": "PATRQT"}).status_code == 200


def test_post_shows_that_a_claim_is_expired(person: SignedIn) -> None:
    StoredClaim.objects.filter(name="address").update(expires_at=NOW)
    page = person.client().post("/details/", {"purpose": "HOPERAT"})
    assert (page.status_code, read_claims(page)["address"]) == (200, "over")
    StoredClaim.objects.filter(name="address").update(expires_at=NOW + timedelta(microseconds=1))
    assert read_claims(person.client().post("/details/", {"purpose": "HOPERAT"}))["address"] == VALUE


def test_page_shows_the_named_claims_in_order(person: SignedIn) -> None:
    page = person.client().get("/two/")
    assert list(read_claims(page)) == ["address", "birthdate"]
    assert list_purposes(page) == ["PATRQT", "HOPERAT", "TREAT"]


@pytest.mark.parametrize("permitted", [True, False])
def test_page_of_another_person_needs_the_permission_and_offers_no_own_request(
    permitted: bool,
    person: SignedIn,
    sign_in: Callable[[], SignedIn],
) -> None:
    clinician = sign_in()
    if permitted:
        clinician.user.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim"))
    client, path = clinician.client(), f"/of/{person.user.pk}/"
    assert list_purposes(client.get(path)) == ["TREAT", "HOPERAT"]
    page = client.post(path, {"purpose": "HOPERAT"})
    assert page.status_code == (200 if permitted else 403)
    assert read_claims(page) == {**dict.fromkeys(STORED, MASK), "address": VALUE if permitted else MASK}
    assert client.post(path, {"purpose": "PATRQT"}).status_code == 403
    assert ("claim.revealed", "PATRQT", "address") not in count_events()


def test_anonymous_page_reveals_nothing(person: SignedIn) -> None:
    for page in (Client().get("/details/", secure=True), Client().post("/details/", {"purpose": "TREAT"}, secure=True)):
        assert page.status_code in (200, 403)
        assert VALUE not in page.content.decode()
    assert {action for action, *_ in count_events()} == {"access.denied"}


def test_cross_site_post_is_refused(person: SignedIn) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies.load({name: morsel.value for name, morsel in person.client().cookies.items()})
    refused = client.post("/details/", {"purpose": "PATRQT"}, secure=True)
    assert (refused.status_code, count_events()) == (403, Counter())
    page = client.get("/details/", secure=True)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())
    assert token
    fields = {"purpose": "PATRQT", "csrfmiddlewaretoken": token[1]}
    accepted = client.post("/details/", fields, secure=True, headers={"Referer": "https://testserver/details/"})
    assert accepted.status_code == 200


def parse_claims(*purposes: str) -> list[Any]:
    raw = {"basis": "letters", "retention": "session"}
    return [parse_claim(f"claim_{n}", {**raw, "purpose": purpose}) for n, purpose in enumerate(purposes)]


@pytest.mark.parametrize(
    ("purposes", "is_own", "codes"),
    [
        (["TREAT", "HOPERAT", "TREAT"], True, ["PATRQT", "TREAT", "HOPERAT"]),
        (["TREAT"], False, ["TREAT"]),
        (["PATRQT", "TREAT"], True, ["PATRQT", "TREAT"]),
        (["PATRQT"], False, ["PATRQT"]),
        ([], True, ["PATRQT"]),
        ([], False, []),
    ],
)
def test_form_offers_declared_purposes_and_the_own_request(purposes: list[str], is_own: bool, codes: list[str]) -> None:
    form = PurposeForm(claims=parse_claims(*purposes), is_own=is_own)
    assert [code for code, _ in form.fields["purpose"].widget.choices] == codes
    assert PurposeForm(claims=[], is_own=False).fields["purpose"].widget.choices == [], (
        "choices are not shared between forms"
    )


def test_form_shows_hl7_labels() -> None:
    form = PurposeForm(claims=parse_claims("HPAYMT", "OURS"), is_own=True)
    assert [label for _, label in form.fields["purpose"].widget.choices] == [
        *("Patient requested", "Healthcare payment", "OURS"),
    ]
