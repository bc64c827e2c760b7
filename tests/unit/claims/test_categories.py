"""Minimum necessary: a claim with a category is disclosed only with the permission of that category, on each path.

The expected result is computed from these rules, independently of the package:

1. `reveal`, the masks, the tag and the pages: a claim needs exactly the permission of its category, or without a
   category the general one. A backend may grant it for everybody or for this person.
2. The disclosure of a legal hold and the export have permissions of their own: only a category needs one in addition.
   A claim that is not declared, whose category is unknown, needs a superuser or a command on the server.
"""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps as global_apps
from django.apps.registry import Apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.management import CommandError, call_command
from django.db import connection
from django.template import engines
from django.template.response import TemplateResponse
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse
from django.views.generic import TemplateView

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.categories import REVEAL_PERMISSION, create_category_permissions
from django_phi_oidc.claims.disclosure import reveal, reveal_many
from django_phi_oidc.claims.masking import MaskedClaim
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.receivers import create_permissions_of_categories
from django_phi_oidc.claims.views import RevealMixin
from django_phi_oidc.contrib.individual_rights.recipients import remember_recipient
from django_phi_oidc.contrib.legal_holds.legal_hold_disclosure import disclose_held_claims
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.errors import RevealRefused
from tests.support.claims_fixtures import DAY, NOW, Person
from tests.support.object_permissions import GRANTED
from tests.support.person_page_fixtures import make_groups
from tests.support.session_fixtures import BACKEND, SignedIn, sign_in  # noqa: F401 -- a fixture
from tests.urls import urlpatterns as portal_urls

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.claims.test_categories"),
]
DECLARED = {
    "phone": {"purpose": "TREAT", "basis": "calls", "retention": DAY, "category": "contact"},
    "iban": {"purpose": "TREAT", "basis": "refunds", "retention": DAY, "category": "finance"},
    "address": {"purpose": "TREAT", "basis": "letters", "retention": DAY},
}
VALUES = {"phone": "canary-phone", "iban": "canary-iban", "address": "canary-address"}
CONTACT, FINANCE = f"{REVEAL_PERMISSION}_contact", f"{REVEAL_PERMISSION}_finance"
NEEDED = {"phone": CONTACT, "iban": FINANCE, "address": REVEAL_PERMISSION}
Holding = dict[str, str]
"""For everybody, for the person, or for another person: the permission."""
HOLDINGS: dict[str, Holding] = {
    "nothing": {},
    "general": {"everybody": REVEAL_PERMISSION},
    "category": {"everybody": CONTACT},
    "general on the person": {"person": REVEAL_PERMISSION},
    "category on the person": {"person": CONTACT},
    "category on another person": {"another": CONTACT},
}
OWN_PERMISSIONS = {"legal hold": "disclose_legalhold", "export": "export_pairwisesubject"}
"""What a disclosure needs that has a permission of its own."""


class Chart(RevealMixin, TemplateView):
    template_name = "claims/details.html"

    def get_person(self) -> Any:
        return get_user_model()._default_manager.get(pk=self.kwargs["pk"])


def letter(request: Any, pk: int) -> TemplateResponse:
    person = get_user_model()._default_manager.get(pk=pk)
    tags = "".join(f'{{% reveal {name} purpose="TREAT" %}}' for name in DECLARED)
    actor = Actor.from_request(request)
    context = {name: MaskedClaim(actor, person, name) for name in DECLARED}
    return TemplateResponse(request, engines["django"].from_string("{% load phi_oidc %}" + tags), context)


urlpatterns = [*portal_urls, path("chart/<int:pk>/", Chart.as_view()), path("letter/<int:pk>/", letter)]


@pytest.fixture(autouse=True)
def _portal(settings: Any, _declared: None) -> Iterator[None]:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": DECLARED}
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.object_permissions.ObjectPermissionBackend"]
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [Path(__file__).parent / "templates"]}]
    create_category_permissions(using="default")
    GRANTED.clear()
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def patient(make_person: Callable[..., Person]) -> Person:
    person = make_person()
    person.store(VALUES, declared=DECLARED)
    return person


@pytest.fixture
def staff(sign_in: Callable[[], SignedIn], patient: Person, make_person: Callable[..., Person]) -> Any:
    """Return a function that signs in a member of staff who holds this."""

    def make(holding: Holding, *more: str) -> Any:
        signed_in: Any = sign_in()
        StoredClaim.objects.exclude(subject=patient.subject).delete()
        signed_in.user.is_staff = True
        signed_in.user.save()
        for codename in [*more, *(name.partition(".")[2] for to, name in holding.items() if to == "everybody")]:
            signed_in.user.user_permissions.add(Permission.objects.get(codename=codename))
        for to, name in holding.items():
            GRANTED.add((signed_in.user.pk, name, patient.subject if to == "person" else make_person().subject))
        client = signed_in.client()
        client.actor = Actor(
            user=get_user_model()._default_manager.get(pk=signed_in.user.pk),
            origin=Person.origin(_as_person(signed_in)),
        )
        return client

    return make


def _as_person(signed_in: Any) -> Any:
    person = Person.__new__(Person)
    person.user, person.subject, person.session_id = signed_in.user, signed_in.subject, signed_in.session.pk
    return person


def try_reveal(client: Any, patient: Person) -> str:
    found = []
    for name in DECLARED:
        with suppress(RevealRefused):
            found.append(reveal(client.actor, patient.user, name, purpose="TREAT"))
    return " ".join(found)


def try_reveal_many(client: Any, patient: Person) -> str:
    results = reveal_many(client.actor, [patient.user], DECLARED, purpose="TREAT")[patient.user.pk]
    return " ".join(result.value or "" for result in results.values())


def try_page_of_the_person(client: Any, patient: Person) -> str:
    url = reverse("admin:phi_oidc_person_act", args=[patient.user.pk, "reveal"])
    offered = [name for name in DECLARED if f'value="{name}"' in client.get(url).content.decode()]
    for name in set(DECLARED) - set(offered):
        forged = client.post(url, {"chosen": [*offered, name], "purpose": "TREAT", "reason": "complaint"})
        assert forged.status_code in (400, 403)
        assert "canary" not in forged.content.decode()
    form = {"chosen": offered, "purpose": "TREAT", "reason": "complaint"}
    return client.post(url, form).content.decode() if offered else ""


def try_legal_hold(client: Any, patient: Person) -> str:
    place_hold(patient.subject.uuid, reason="Docket 26-117", until=None, origin=patient.origin(), now=NOW)
    claims = disclose_held_claims(client.actor, patient.subject.uuid, purpose="HLEGAL")
    assert {claim.name for claim in claims if claim.is_refused} == {claim.name for claim in claims if not claim.value}
    return " ".join(claim.value or "" for claim in claims)


def try_export(client: Any, patient: Person) -> str:
    # A document without some of the claims would be incomplete, so only the patient's phone number is stored.
    StoredClaim.objects.filter(name="iban").delete()
    url = reverse("admin:phi_oidc_person_act", args=[patient.user.pk, "export"])
    page = client.post(url, {"purpose": "PATRQT", "reason": "access_request"})
    return page.content.decode() if page.status_code == 200 else ""


PATHS: dict[str, Callable[[Any, Person], str]] = {
    "reveal": try_reveal,
    "reveal_many": try_reveal_many,
    "tag": lambda client, patient: client.get(f"/letter/{patient.user.pk}/").content.decode(),
    "page of the portal": lambda client, patient: client.post(
        f"/chart/{patient.user.pk}/", {"purpose": "TREAT"}
    ).content.decode(),
    "page of the person": try_page_of_the_person,
    "legal hold": try_legal_hold,
    "export": try_export,
}


def list_expected(path_name: str, holding: Holding) -> set[str]:
    """Return the claims that rules 1 and 2 permit."""
    held = {permission for to, permission in holding.items() if to != "another"}
    permitted = {name for name, permission in NEEDED.items() if permission in held}
    if path_name == "legal hold":
        return permitted | {"address"}
    if path_name == "export":
        return {"phone", "address"} if "phone" in permitted else set()
    return permitted


@pytest.mark.parametrize(("path_name", "held"), [*product(PATHS, HOLDINGS)])
def test_g8_claim_needs_the_permission_of_its_category(path_name: str, held: str, patient: Person, staff: Any) -> None:
    client = staff(HOLDINGS[held], *filter(None, [OWN_PERMISSIONS.get(path_name, "")]))
    answer = PATHS[path_name](client, patient)
    expected = list_expected(path_name, HOLDINGS[held])
    assert {name for name, value in VALUES.items() if value in answer} == expected
    events = AuditEvent.objects.filter(actor=client.actor.origin.actor)
    revealed = {json.loads(event.detail)["claim"] for event in events.filter(action="claim.revealed")}
    assert revealed == (set() if path_name == "export" else expected)
    denied = events.filter(action="access.denied")
    assert {event.reason for event in denied} <= {"permission_missing"}
    if path_name in ("reveal", "reveal_many", "tag", "legal hold"):
        assert {json.loads(event.detail)["claim"] for event in denied} == set(DECLARED) - expected
    elif not expected:
        assert denied.exists()


@pytest.mark.parametrize("path_name", OWN_PERMISSIONS)
def test_g8_claim_without_a_declaration_is_disclosed_to_superusers_only(
    path_name: str, patient: Person, staff: Any, settings: Any
) -> None:
    client = staff({"everybody": CONTACT}, OWN_PERMISSIONS[path_name], "reveal_storedclaim_finance")
    declared = {name: DECLARED[name] for name in ("phone", "address")}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {"phone": DECLARED["phone"], "iban": DECLARED["iban"]}}
    answer = PATHS[path_name](client, patient)
    assert [VALUES["address"] in answer, VALUES["phone"] in answer] == [False, path_name == "legal hold"]
    denied = AuditEvent.objects.get(action="access.denied")
    assert (denied.reason, json.loads(denied.detail)) == ("permission_missing", {"claim": "address"})
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": declared}
    assert VALUES["address"] in PATHS[path_name](client, patient), "it is declared"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {"phone": DECLARED["phone"]}}
    get_user_model()._default_manager.filter(pk=client.actor.user.pk).update(is_superuser=True)
    client.actor = replace(client.actor, user=get_user_model()._default_manager.get(pk=client.actor.user.pk))
    assert VALUES["address"] in PATHS[path_name](client, patient)


def test_g8_command_exports_a_claim_without_a_declaration(patient: Person, settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {}}
    out = io.StringIO()
    call_command("phi_oidc", "subject", "export", "--user", patient.user.get_username(), stdout=out)
    assert all(value in out.getvalue() for value in VALUES.values())


def list_permissions() -> list[str]:
    rows = Permission.objects.filter(codename__startswith="reveal_storedclaim_").order_by("codename")
    return [row.codename.removeprefix("reveal_storedclaim_") for row in rows]


def test_g8_migrate_creates_the_permission_of_each_declared_category(settings: Any) -> None:
    Permission.objects.filter(codename__startswith="reveal_storedclaim_").delete()
    for expected in (["contact", "finance"], ["contact", "finance"]):
        call_command("migrate", verbosity=0)
        assert list_permissions() == expected
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {"phone": {**DECLARED["phone"], "category": "calls"}}}
    call_command("migrate", verbosity=0)
    assert list_permissions() == ["calls", "contact", "finance"], "granted permissions are not deleted"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {"phone": {**DECLARED["phone"], "category": "No name"}}}
    call_command("migrate", verbosity=0)
    assert list_permissions() == ["calls", "contact", "finance"], "E002 reports the name"


def test_g8_migrating_to_zero_creates_no_permission(django_assert_num_queries: Any) -> None:
    Permission.objects.filter(codename__startswith="reveal_storedclaim_").delete()
    sender = global_apps.get_app_config("django_phi_oidc")
    with django_assert_num_queries(0):
        create_permissions_of_categories(sender=sender, using="default", apps=Apps())
    create_permissions_of_categories(sender=sender, using="default", apps=global_apps)
    assert list_permissions() == ["contact", "finance"]


def test_g8_groups_include_one_for_each_category() -> None:
    make_groups()
    for name, permission in (("contact", CONTACT), ("finance", FINANCE)):
        rows = Group.objects.get(name=f"Claims: {name}").permissions.all()
        assert [f"django_phi_oidc.{row.codename}" for row in rows] == [permission]
    assert not Permission.objects.filter(group__name="Privacy officer", codename__startswith="reveal_storedclaim_")
    make_groups("--check")
    Group.objects.get(name="Claims: contact").permissions.clear()
    with pytest.raises(CommandError, match="differ from"):
        make_groups("--check")


def test_g8_person_sees_claims_of_each_category_without_a_permission(patient: Person) -> None:
    for name, value in VALUES.items():
        assert reveal(patient.actor(), patient.user, name, purpose="PATRQT") == value


def test_g8_superuser_reveals_claims_of_each_category(patient: Person, make_person: Callable[..., Person]) -> None:
    superuser = make_person()
    superuser.user.is_superuser = True
    superuser.user.save()
    for name, value in VALUES.items():
        assert reveal(superuser.actor(), patient.user, name, purpose="TREAT") == value


def list_names(client: Any) -> set[str]:
    page = client.get(reverse("admin:django_phi_oidc_storedclaim_changelist"))
    return {row.name for row in page.context["cl"].result_list}


@pytest.mark.parametrize("held", HOLDINGS)
def test_g8_admin_shows_a_category_only_with_its_permission(held: str, patient: Person, staff: Any) -> None:
    client = staff(HOLDINGS[held], "view_storedclaim")
    holds_all, holds_person = (HOLDINGS[held].get(to) == CONTACT for to in ("everybody", "person"))
    assert list_names(client) == {"address"} | ({"phone"} if holds_all else set())
    phone = StoredClaim.objects.get(name="phone")
    page = client.get(reverse("admin:django_phi_oidc_storedclaim_change", args=[phone.pk]))
    assert page.status_code == (200 if holds_all or holds_person else 403)
    denied = AuditEvent.objects.filter(action="access.denied").values_list("reason", "resource")
    assert list(denied) == ([] if page.status_code == 200 else [("permission_missing", f"StoredClaim/{phone.pk}")])
    person_page = client.get(reverse("admin:phi_oidc_person", args=[patient.user.pk])).content.decode()
    assert "Address" in person_page
    assert ("Phone" in person_page) == (holds_all or holds_person)
    assert "iban" not in person_page.lower()


@pytest.mark.parametrize("held", HOLDINGS)
def test_g8_page_of_a_person_offers_to_reveal_only_to_holders(held: str, patient: Person, staff: Any) -> None:
    client = staff(HOLDINGS[held])
    url = reverse("admin:phi_oidc_person", args=[patient.user.pk])
    page = client.get(url)
    is_holder = bool(HOLDINGS[held].keys() & {"everybody", "person"})
    assert page.status_code == (200 if is_holder else 403)
    assert (f"{url}reveal/" in page.content.decode()) == is_holder


def test_g8_model_wide_permissions_cost_no_query(patient: Person, staff: Any) -> None:
    client = staff({"everybody": CONTACT})
    user = client.actor.user
    assert user.has_perm(CONTACT), "Django has cached the permissions"
    remember_recipient(user, now=clock.now())
    for names, statements in ((["phone"], 1), (["phone", "address"], 1)):
        with CaptureQueriesContext(connection) as queries:
            reveal_many(client.actor, [patient.user], names, purpose="TREAT")
        assert len(queries) == statements


def test_g8_object_permission_is_asked_once_for_each_category_and_person(
    patient: Person, staff: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, asked = staff({"person": CONTACT}), []
    has_perm = client.actor.user.has_perm
    monkeypatch.setattr(client.actor.user, "has_perm", lambda *args: asked.append(args) or has_perm(*args))
    reveal_many(client.actor, [patient.user], DECLARED, purpose="TREAT")
    on_objects = [(permission, obj) for permission, *objects in asked for obj in objects]
    assert sorted(on_objects, key=str) == sorted(((name, patient.subject) for name in NEEDED.values()), key=str)
