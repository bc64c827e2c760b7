"""42 CFR Part 2: a labelled disclosure to others needs a reference to a consent, and has the notice of 2.32.

Each acceptance is next to the refusal that differs in the reference only.
"""

import json
from collections.abc import Callable, Iterator
from html import unescape
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import RequestFactory
from django.urls import path, reverse
from django.views.generic import TemplateView, View
from rest_framework.exceptions import NotFound
from rest_framework.response import Response
from rest_framework.views import APIView

from django_phi_oidc._internal import clock
from django_phi_oidc.access.mixins import PHIAccessMixin
from django_phi_oidc.access.no_store import NOTICE_HEADER
from django_phi_oidc.access.part2 import NOTICE, SHORT_NOTICE, lacks_consent
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.disclosure import reveal, reveal_many
from django_phi_oidc.claims.masking import MaskedClaim
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.views import RevealMixin
from django_phi_oidc.contrib.legal_holds.legal_hold_disclosure import disclose_held_claims
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.contrib.rest_framework.permissions import PHIAccess
from django_phi_oidc.decorators import phi_access
from django_phi_oidc.errors import RevealRefused
from tests.support.claims_fixtures import DAY, NOW, Person
from tests.support.emergency_access import allow, declared, opened
from tests.support.session_fixtures import SignedIn, sign_in  # noqa: F401 -- a fixture
from tests.urls import urlpatterns as portal_urls

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.access.test_part2"),
]
DECLARED = {
    "diagnosis": {"purpose": "TREAT", "basis": "treatment", "retention": DAY, "label": "part2"},
    "address": {"purpose": "TREAT", "basis": "letters", "retention": DAY},
}
VALUES = {"diagnosis": "canary-diagnosis", "address": "canary-address"}
CONSENT = "Consent/26-4711"
INVALID = ("", " ", "Amina Keller", "a@b", "c" * 129, "ü", "26\n", "-26")
"""No references. The last ones could be anything that a user typed."""
GUARD: dict[str, Any] = {"permission": "auth.view_user"}


LOOKUP_ERRORS = {"missing": ObjectDoesNotExist, "404": Http404, "denied": PermissionDenied, "api": NotFound}


def get_stated_consent(request: HttpRequest, **kwargs: Any) -> str:
    if error := LOOKUP_ERRORS.get(consent := request.GET.get("consent", "")):
        raise error
    return consent


@phi_access(
    purpose=lambda request, pk: request.GET.get("purpose", "TREAT"),
    purposes=["TREAT", "PATRQT"],
    resource=lambda request, pk: f"Patient/{pk}",
    label="part2",
    consent=get_stated_consent,
    **GUARD,
)
def chart(request: HttpRequest, pk: int) -> HttpResponse:
    return HttpResponse("the chart")


class Chart(PHIAccessMixin, View):
    permission, purpose, label = GUARD["permission"], "TREAT", "part2"

    def get_resource(self) -> str:
        return f"Patient/{self.kwargs['pk']}"

    def get_consent(self) -> str:
        return get_stated_consent(self.request)

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return HttpResponse("the chart")


class ChartAPI(APIView):
    permission_classes = (PHIAccess,)
    permission, purpose, label = GUARD["permission"], "TREAT", "part2"

    def get_resource(self) -> str:
        return f"Patient/{self.kwargs['pk']}"

    def get_consent(self) -> str:
        return get_stated_consent(self.request)

    def get(self, request: Any, pk: int) -> Response:
        return Response("the chart")


def find_person(pk: int) -> Any:
    return get_user_model()._default_manager.get(pk=pk)


def letter(request: HttpRequest, pk: int) -> TemplateResponse:
    page = (
        "{% load phi_oidc %}{% reveal diagnosis purpose='TREAT' consent=consent as it %}{{ it.value }}{{ it.notice }}"
        "{% reveal address purpose='TREAT' %}{% reveal diagnosis purpose='TREAT' consent=consent %}"
    )
    masks = {name: MaskedClaim(Actor.from_request(request), find_person(pk), name) for name in DECLARED}
    context = {**masks, "consent": get_stated_consent(request)}
    return TemplateResponse(request, engines["django"].from_string(page), context)


class Details(RevealMixin, TemplateView):
    def get_person(self) -> Any:
        return find_person(self.kwargs["pk"])

    def get_consent(self) -> str:
        return get_stated_consent(self.request)

    def render_to_response(self, context: Any, **kwargs: Any) -> HttpResponse:
        values = [claim.revealed.value for claim in context["claims"] if claim.revealed]
        return HttpResponse(f"{values} {context['redisclosure_notice']}", **kwargs)


urlpatterns = [
    *portal_urls,
    path("function/<int:pk>/", chart),
    path("class/<int:pk>/", Chart.as_view()),
    path("api/<int:pk>/", ChartAPI.as_view()),
    path("letter/<int:pk>/", letter),
    path("details/<int:pk>/", Details.as_view()),
]


def list_own_resources(user: Any) -> list[str]:
    return [f"Patient/{user.pk}"]


@pytest.fixture(autouse=True)
def _portal(settings: Any) -> Iterator[None]:
    resources = f"{__name__}.list_own_resources"
    settings.PHI_OIDC = {
        **settings.PHI_OIDC,
        **{"CLAIMS": DECLARED, "PATIENT_RESOURCES": resources},
        "EMERGENCY": declared(permissions={GUARD["permission"]: "See a chart"}, acr=[]),
    }
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def patient() -> Person:
    person = Person()
    person.store(VALUES, declared=DECLARED)
    return person


@pytest.fixture
def staff(sign_in: Callable[[], SignedIn]) -> Any:
    """Return a client of a member of staff with every permission that a path needs."""
    signed_in: Any = sign_in()
    StoredClaim.objects.filter(subject=signed_in.subject).delete()
    signed_in.user.is_staff = True
    signed_in.user.save()
    names = ("reveal_storedclaim", "view_user", "disclose_legalhold", "export_pairwisesubject")
    signed_in.user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = signed_in.client()
    client.user = get_user_model()._default_manager.get(pk=signed_in.user.pk)
    client.origin = Person.origin(SimpleNamespace(user=client.user, session_id=signed_in.session.pk))  # type: ignore[arg-type]
    client.actor = Actor(user=client.user, origin=client.origin, request=RequestFactory().get("/"))
    return client


def post_action(client: Any, patient: Person, action: str, **data: Any) -> Any:
    return client.post(reverse("admin:phi_oidc_person_act", args=[patient.user.pk, action]), data)


def reveal_both(client: Any, patient: Person, consent: str) -> str:
    address = reveal(client.actor, patient.user, "address", purpose="TREAT")
    try:
        return f"{address} {reveal(client.actor, patient.user, 'diagnosis', purpose='TREAT', consent=consent)}"
    except RevealRefused as refusal:
        return f"{address} {refusal.reason}"


def reveal_many_claims(client: Any, patient: Person, consent: str) -> str:
    options: Any = {"purpose": "TREAT", "consents": {patient.user.pk: consent}}
    results = reveal_many(client.actor, [patient.user], DECLARED, **options)[patient.user.pk]
    return " ".join(f"{result.value} {result.notice}" for result in results.values())


def disclose(client: Any, patient: Person, consent: str) -> str:
    place_hold(patient.subject.uuid, reason="Docket 26-117", until=None, origin=patient.origin(), now=NOW)
    claims = disclose_held_claims(client.actor, patient.subject.uuid, purpose="HLEGAL", consent=consent)
    return " ".join(f"{claim.value} {claim.notice}" for claim in claims)


def disclose_on_the_page(client: Any, patient: Person, consent: str) -> Any:
    place_hold(patient.subject.uuid, reason="Docket 26-117", until=None, origin=patient.origin(), now=NOW)
    return post_action(client, patient, "disclose", chosen=str(patient.subject.uuid), consent=consent)


def reveal_on_the_page(client: Any, patient: Person, consent: str) -> Any:
    form = {"chosen": ["diagnosis", "address"], "purpose": "TREAT", "reason": "complaint", "consent": consent}
    return post_action(client, patient, "reveal", **form)


def export_on_the_page(client: Any, patient: Person, consent: str) -> Any:
    return post_action(client, patient, "export", purpose="HLEGAL", reason="authority", consent=consent)


CLAIM_PATHS: dict[str, Callable[[Any, Person, str], Any]] = {
    "reveal": reveal_both,
    "reveal_many": reveal_many_claims,
    "tag": lambda client, patient, consent: client.get(f"/letter/{patient.user.pk}/", {"consent": consent}),
    "page of the portal": lambda client, patient, consent: client.post(
        f"/details/{patient.user.pk}/?{urlencode({'consent': consent})}", {"purpose": "TREAT"}
    ),
    "page of the person": reveal_on_the_page,
    "legal hold": disclose,
    "legal hold on the page": disclose_on_the_page,
    "export": export_on_the_page,
}


def list_events(*actions: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the events, sorted: the clock stands still, so their order is random."""
    rows = AuditEvent.objects.filter(action__in=actions or ("claim.revealed", "access.denied"))
    return sorted(((row.action, row.reason, json.loads(row.detail)) for row in rows), key=str)


@pytest.mark.parametrize("consent", ["", CONSENT])
@pytest.mark.parametrize("name", CLAIM_PATHS)
def test_g16_labelled_claim_needs_a_consent_and_has_the_notice(
    name: str, consent: str, patient: Person, staff: Any
) -> None:
    answer = CLAIM_PATHS[name](staff, patient, consent)
    is_response, is_given = isinstance(answer, HttpResponse), consent == CONSENT
    text = unescape(answer.content.decode()) if is_response else answer
    assert (VALUES["diagnosis"] in text) == is_given
    # An export without some of the claims would be incomplete, so nothing is exported.
    assert (VALUES["address"] in text) == (is_given or name != "export")
    if name != "reveal":
        assert (NOTICE in text) == is_given
    has_header = NOTICE_HEADER in answer if is_response else hasattr(staff.actor.request, "phi_oidc_part2")
    assert has_header == is_given
    if is_response and is_given:
        assert answer[NOTICE_HEADER] == SHORT_NOTICE
    denied = [(reason, detail) for _, reason, detail in list_events("access.denied")]
    assert (("consent_missing", {"claim": "diagnosis"}) in denied) == (not is_given)
    disclosures = [detail for _, _, detail in list_events("claim.revealed", "subject.exported")]
    labelled = [detail for detail in disclosures if "diagnosis" in str(detail)]
    section = "42 CFR 2.32(a)(1)" if name == "export" else "42 CFR 2.32(a)(2)"
    assert all((detail["consent"], detail["notice"]) == (CONSENT, section) for detail in labelled)
    assert bool(labelled) == is_given
    assert not any("consent" in detail for detail in disclosures if detail not in labelled)


@pytest.mark.parametrize("consent", INVALID)
def test_g16_consent_of_another_form_is_refused_and_not_recorded(consent: str, patient: Person, staff: Any) -> None:
    assert not lacks_consent("part2", "c" * 128)
    assert lacks_consent("part2", consent)
    with pytest.raises(RevealRefused, match="consent_missing"):
        reveal(staff.actor, patient.user, "diagnosis", purpose="TREAT", consent=consent)
    assert list_events() == [("access.denied", "consent_missing", {"claim": "diagnosis"})]
    assert reveal(staff.actor, patient.user, "diagnosis", purpose="TREAT", consent=CONSENT) == VALUES["diagnosis"]


def test_g16_consent_is_that_of_one_person(patient: Person, staff: Any) -> None:
    other = Person()
    other.store(VALUES, declared=DECLARED)
    users, consents = [patient.user, other.user], {other.user.pk: CONSENT}
    results = reveal_many(staff.actor, users, "diagnosis", purpose="TREAT", consents=consents)
    assert [results[user.pk]["diagnosis"].value for user in users] == [None, VALUES["diagnosis"]]
    assert results[patient.user.pk]["diagnosis"].is_refused


def test_g16_person_needs_no_consent_for_own_claims(patient: Person) -> None:
    """42 CFR 2.23."""
    result = reveal_many(patient.actor(), [patient.user], "diagnosis", purpose="PATRQT")[patient.user.pk]["diagnosis"]
    assert (result.value, result.notice) == (VALUES["diagnosis"], "")
    assert list_events() == [("claim.revealed", "", {"claim": "diagnosis"})]


def test_g16_export_at_the_request_of_the_person_needs_no_consent(patient: Person, staff: Any) -> None:
    """42 CFR 2.23."""
    response = post_action(staff, patient, "export", purpose="PATRQT", reason="access_request")
    assert json.loads(response.content)["redisclosure_notice"] == NOTICE
    claims = json.loads(response.content)["subjects"][0]["claims"]
    assert {claim["name"]: claim["label"] for claim in claims} == {"diagnosis": "part2", "address": None}
    assert list_events("subject.exported") == [
        ("subject.exported", "access_request", {"claims": ["address", "diagnosis"], "notice": "42 CFR 2.32(a)(1)"})
    ]


def test_g16_without_a_label_nothing_asks_for_a_consent(patient: Person, staff: Any, settings: Any) -> None:
    unlabelled = {name: {**claim, "label": None} for name, claim in DECLARED.items()}
    for claims, is_offered in ((DECLARED, True), (unlabelled, False)):
        settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": claims}
        for action in ("reveal", "disclose", "export"):
            page = staff.get(reverse("admin:phi_oidc_person_act", args=[patient.user.pk, action]))
            assert ('name="consent"' in page.content.decode()) == is_offered, action
    response = reveal_on_the_page(staff, patient, "")
    assert VALUES["diagnosis"] in response.content.decode()
    assert NOTICE_HEADER not in response


@pytest.mark.parametrize("guard", ["function", "class", "api"])
def test_g16_guarded_view_needs_a_consent_and_has_the_notice(guard: str, staff: Any) -> None:
    for consent in INVALID:
        refused = staff.get(f"/{guard}/7/", {"consent": consent})
        assert (refused.status_code, NOTICE_HEADER in refused) == (403, False)
    granted = staff.get(f"/{guard}/7/", {"consent": CONSENT})
    assert (granted.status_code, granted[NOTICE_HEADER]) == (200, SHORT_NOTICE)
    assert list_events("access.granted", "access.denied") == [
        *[("access.denied", "consent_missing", {})] * len(INVALID),
        ("access.granted", "", {"consent": CONSENT, "notice": "42 CFR 2.32(a)(2)"}),
    ]


@pytest.mark.parametrize(
    ("guard", "error"),
    [
        *((guard, error) for guard in ("function", "class", "api") for error in ("missing", "404", "denied")),
        ("api", "api"),
    ],
)
def test_g16_missing_row_of_a_consent_is_refused_like_a_missing_consent(guard: str, error: str, staff: Any) -> None:
    assert staff.get(f"/{guard}/7/", {"consent": error}).status_code == 403
    assert staff.get(f"/{guard}/7/", {"consent": CONSENT}).status_code == 200
    reasons = [reason for _, reason, _ in list_events("access.granted", "access.denied")]
    assert reasons == ["consent_missing", ""]


@pytest.mark.parametrize("error", ["missing", "404", "denied"])
def test_g16_missing_row_of_a_consent_for_claims_is_a_missing_consent(error: str, patient: Person, staff: Any) -> None:
    staff.post(f"/details/{patient.user.pk}/?consent={error}", {"purpose": "TREAT"})
    assert ("access.denied", "consent_missing") in {(a, reason) for a, reason, _ in list_events("access.denied")}


@pytest.mark.parametrize("guard", ["function", "class", "api"])
def test_g16_consent_is_not_looked_up_for_a_user_without_the_permission(
    guard: str, staff: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOOKUP_ERRORS, CONSENT, RuntimeError)
    staff.user.user_permissions.clear()
    assert staff.get(f"/{guard}/7/", {"consent": CONSENT}).status_code == 403
    assert [reason for _, reason, _ in list_events("access.granted", "access.denied")] == ["permission_missing"]
    allow(staff.user, "view_user")
    with pytest.raises(RuntimeError):
        staff.get(f"/{guard}/7/", {"consent": CONSENT})


def test_g16_open_emergency_replaces_the_consent_for_its_record(staff: Any) -> None:
    """42 CFR 2.51."""
    staff.user = allow(staff.user, "open_emergencyaccess")
    assert staff.get("/function/7/").status_code == 403
    emergency = opened(staff.user, "Patient/7", permissions=[GUARD["permission"]])
    assert staff.get("/function/7/")[NOTICE_HEADER] == SHORT_NOTICE
    assert staff.get("/function/8/").status_code == 403
    detail = {"emergency": str(emergency.pk), "notice": "42 CFR 2.32(a)(2)"}
    assert list_events("access.granted", "access.denied") == [
        *[("access.denied", "consent_missing", {})] * 2,
        ("access.granted", "", detail),
    ]
    assert AuditEvent.objects.get(action="access.granted").purpose == "ETREAT"


def test_g16_person_needs_no_consent_for_an_own_record(staff: Any) -> None:
    """42 CFR 2.23."""
    own, other = f"/function/{staff.user.pk}/", f"/function/{staff.user.pk + 1}/"
    answers = [staff.get(url, {"purpose": purpose}) for url in (own, other) for purpose in ("PATRQT", "TREAT")]
    assert [answer.status_code for answer in answers] == [200, 403, 403, 403]
    assert NOTICE_HEADER not in answers[0]
    assert list_events("access.granted") == [("access.granted", "", {})]


def fail_to_list(user: Any) -> list[str]:
    raise ObjectDoesNotExist


def test_g16_failing_function_of_the_project_makes_no_record_an_own_one(staff: Any, settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PATIENT_RESOURCES": f"{__name__}.fail_to_list"}
    own = f"/function/{staff.user.pk}/"
    assert staff.get(own, {"purpose": "PATRQT"}).status_code == 403
    assert staff.get(own, {"purpose": "PATRQT", "consent": CONSENT}).status_code == 200
    assert [reason for _, reason, _ in list_events("access.granted", "access.denied")] == ["consent_missing", ""]
