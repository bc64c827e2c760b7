"""A page that asks for a purpose, and then shows: by GET the masks, by POST what the purpose opens."""

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
KEPT = [name for name, claim in DECLARED.items() if claim["retention"] is not None]


@pytest.fixture(autouse=True)
def _portal(settings: Any) -> Iterator[None]:
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [Path(__file__).parent / "templates"]}]
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def person(sign_in: Callable[[], SignedIn]) -> SignedIn:  # noqa: F811 -- the fixture
    """Return somebody with a birthdate for TREAT and an address for HOPERAT."""
    signed_in = sign_in()
    StoredClaim.objects.filter(name="address").update(purpose="HOPERAT")
    return signed_in


def told() -> Counter[tuple[str, str, str]]:
    events = AuditEvent.objects.filter(action__in=["claim.revealed", "access.denied"])
    return Counter((event.action, event.purpose, json.loads(event.detail)["claim"]) for event in events)


def shown(page: Any) -> dict[str, str]:
    """Return what the page has for each claim."""
    found = re.findall(r'data-claim="(\w+)"[^>]*>([^<]*)</li>', page.content.decode())
    return dict(found)


def offered(page: Any) -> list[str]:
    return re.findall(r'type="radio" name="purpose" value="(\w*)"', page.content.decode())


def test_get_shows_masks_and_what_is_declared_and_tells_nothing(person: SignedIn) -> None:
    page = person.client().get("/details/")
    assert shown(page) == dict.fromkeys(KEPT, MASK)
    assert 'data-basis="letters" data-purpose="HOPERAT" data-retention="1 day, 0:00:00"' in page.content.decode()
    assert offered(page) == ["PATRQT", "TREAT", "HOPERAT"]
    assert " checked" not in page.content.decode()
    assert (told(), "no-store" in page.get("Cache-Control", "")) == (Counter(), False)


@pytest.mark.parametrize("path", ["/details/?purpose=PATRQT", "/details/?purpose=TREAT&reveal=1"])
def test_get_with_a_purpose_is_no_look(path: str, person: SignedIn) -> None:
    for page in (person.client().get(path), person.client().head(path)):
        assert VALUE not in page.content.decode()
    assert told() == Counter()


OPENED = {
    "PATRQT": {"birthdate": VALUE, "allergies": "None", "address": VALUE},
    "TREAT": {"birthdate": VALUE, "allergies": "None", "address": MASK},
    "HOPERAT": {"birthdate": MASK, "allergies": MASK, "address": VALUE},
}


@pytest.mark.parametrize("purpose", OPENED)
def test_post_with_a_purpose_opens_what_is_held_for_it_and_asks_for_nothing_else(
    purpose: str, person: SignedIn
) -> None:
    page = person.client().post("/details/", {"purpose": purpose})
    assert (page.status_code, shown(page)) == (200, OPENED[purpose])
    assert f"<h1>{purpose}</h1>" in page.content.decode()
    assert page["Cache-Control"] == "no-store"
    opened = [name for name, value in OPENED[purpose].items() if value != MASK]
    assert told() == Counter(("claim.revealed", purpose, name) for name in opened)


@pytest.mark.parametrize("purpose", ["HMARKT", "curiosity", "treat"])
def test_post_with_a_purpose_that_nothing_is_held_for_is_refused_and_told(purpose: str, person: SignedIn) -> None:
    page = person.client().post("/details/", {"purpose": purpose})
    assert (page.status_code, shown(page)) == (403, dict.fromkeys(KEPT, MASK))
    assert "for that purpose" in page.content.decode()
    assert not re.search("purpose_(unknown|not_declared)", page.content.decode()), "the reason is in the trail"
    assert told() == Counter(("access.denied", purpose, name) for name in KEPT)


@pytest.mark.parametrize(
    "fields", [{}, {"purpose": ""}, {"purpose": "  "}, {"purpose": "T" * 33}, {"purpose": "\0"}], ids=repr
)
def test_post_without_a_purpose_asks_again_and_tells_nothing(fields: dict[str, str], person: SignedIn) -> None:
    page = person.client().post("/details/", fields)
    assert (page.status_code, shown(page)) == (400, dict.fromkeys(KEPT, MASK))
    assert 'class="errorlist"' in page.content.decode()
    assert told() == Counter()


def test_post_without_the_audit_database_opens_nothing(person: SignedIn) -> None:
    def fail(*args: Any) -> Any:
        raise OperationalError("the server is away")

    client = person.client()
    with connections["phi_audit"].execute_wrapper(fail):
        page = client.post("/details/", {"purpose": "PATRQT"})
    assert (page.status_code, shown(page)) == (503, dict.fromkeys(KEPT, MASK))
    assert VALUE not in page.content.decode()
    assert client.post("/details/", {"purpose": "PATRQT"}).status_code == 200


def test_post_after_a_claims_time_shows_that_it_is_over(person: SignedIn) -> None:
    StoredClaim.objects.filter(name="address").update(expires_at=NOW)
    page = person.client().post("/details/", {"purpose": "HOPERAT"})
    assert (page.status_code, shown(page)["address"]) == (200, "over")
    StoredClaim.objects.filter(name="address").update(expires_at=NOW + timedelta(microseconds=1))
    assert shown(person.client().post("/details/", {"purpose": "HOPERAT"}))["address"] == VALUE


def test_page_of_some_claims_shows_these_in_its_order(person: SignedIn) -> None:
    page = person.client().get("/two/")
    assert list(shown(page)) == ["address", "birthdate"]
    assert offered(page) == ["PATRQT", "HOPERAT", "TREAT"]


@pytest.mark.parametrize("permitted", [True, False])
def test_page_of_another_person_takes_the_permission_and_offers_no_request_of_theirs(
    permitted: bool,
    person: SignedIn,
    sign_in: Callable[[], SignedIn],  # noqa: F811
) -> None:
    clinician = sign_in()
    if permitted:
        clinician.user.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim"))
    client, path = clinician.client(), f"/of/{person.user.pk}/"
    assert offered(client.get(path)) == ["TREAT", "HOPERAT"]
    page = client.post(path, {"purpose": "HOPERAT"})
    assert page.status_code == (200 if permitted else 403)
    assert shown(page) == {**dict.fromkeys(KEPT, MASK), "address": VALUE if permitted else MASK}
    assert client.post(path, {"purpose": "PATRQT"}).status_code == 403
    assert ("claim.revealed", "PATRQT", "address") not in told()


def test_page_without_anybody_signed_in_opens_nothing(person: SignedIn) -> None:
    for page in (Client().get("/details/", secure=True), Client().post("/details/", {"purpose": "TREAT"}, secure=True)):
        assert page.status_code in (200, 403)
        assert VALUE not in page.content.decode()
    assert {action for action, *_ in told()} == {"access.denied"}


def test_post_from_another_site_is_refused(person: SignedIn) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies.load({name: morsel.value for name, morsel in person.client().cookies.items()})
    refused = client.post("/details/", {"purpose": "PATRQT"}, secure=True)
    assert (refused.status_code, told()) == (403, Counter())
    page = client.get("/details/", secure=True)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())
    assert token
    fields = {"purpose": "PATRQT", "csrfmiddlewaretoken": token[1]}
    accepted = client.post("/details/", fields, secure=True, headers={"Referer": "https://testserver/details/"})
    assert accepted.status_code == 200


def claims(*purposes: str) -> list[Any]:
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
def test_form_offers_the_declared_purposes_and_to_the_person_their_own_request(
    purposes: list[str], is_own: bool, codes: list[str]
) -> None:
    form = PurposeForm(claims=claims(*purposes), is_own=is_own)
    assert [code for code, _ in form.fields["purpose"].widget.choices] == codes
    assert PurposeForm(claims=[], is_own=False).fields["purpose"].widget.choices == [], "each form has its own"


def test_form_says_what_hl7_says() -> None:
    form = PurposeForm(claims=claims("HPAYMT", "OURS"), is_own=True)
    assert [label for _, label in form.fields["purpose"].widget.choices] == [
        *("Patient requested", "Healthcare payment", "OURS"),
    ]
