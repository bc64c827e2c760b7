"""Each request that a guard of the assurance admits is one event, committed before the view runs."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_page
from django.views.generic import View

from django_phi_oidc._internal import clock
from django_phi_oidc.access.mixins import AssuranceMixin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import ASSURANCE_KEY, build_assurance_entry
from django_phi_oidc.decorators import phi_access, require_assurance
from tests.support import guarded_views as wards
from tests.support.audit_outage import audit_database_fails
from tests.support.guarded_views import HELD, PERMISSION, RAN, record_run
from tests.support.manual_blocks import block
from tests.support.session_fixtures import BACKEND, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.access.test_recorded_grants"),
]
RECENT = {"max_age": timedelta(hours=1)}
record_access = phi_access(purpose="TREAT", resource=lambda request, *args, pk: f"Patient/{pk}", permission=PERMISSION)


def run(request: HttpRequest, pk: int) -> HttpResponse:
    return record_run("view")


async def arun(request: HttpRequest, pk: int) -> HttpResponse:
    return record_run("view")


class Assured(AssuranceMixin, View):
    max_age = RECENT["max_age"]

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return record_run("view")


class AssuredChart(Assured):
    @method_decorator(record_access)
    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return record_run("view")


class WholeChart(wards.Chart):
    purposes = ("TREAT",)

    def get_purpose(self) -> str:
        return "TREAT"


require_recent = require_assurance(**RECENT)
PAGES = {
    "function": require_recent(run),
    "async": require_recent(arun),
    "class": Assured.as_view(),
    "twice": require_recent(require_assurance(max_age=timedelta(days=1))(run)),
    "around-class": require_recent(Assured.as_view()),
}
CACHED = {
    "cached-outside": cache_page(600)(require_recent(run)),
    "cached-inside": require_recent(cache_page(600)(run)),
    "cached-between": require_recent(cache_page(600)(require_recent(run))),
}
CHARTS = {
    "around": require_recent(record_access(run)),
    "inside": record_access(require_recent(run)),
    "method": AssuredChart.as_view(),
    "around-chart": require_recent(WholeChart.as_view()),
}
urlpatterns = [path(f"{name}/<int:pk>/", view, name=name) for name, view in {**PAGES, **CACHED, **CHARTS}.items()]
urlpatterns += [path("unnamed/<int:pk>/", PAGES["function"]), path("unguarded/<int:pk>/", run)]
urlpatterns += [path("oidc/", include("django_phi_oidc.urls"))]


@pytest.fixture(autouse=True)
def _wards(settings: Any) -> Iterator[None]:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    for collection in (HELD, RAN):
        collection.clear()
    yield
    HELD.clear()


@pytest.fixture
def person(sign_in: Callable[[], SignedIn]) -> SignedIn:
    signed_in = sign_in()
    HELD.update({(signed_in.user.pk, None), (signed_in.user.pk, signed_in.user.pk)})
    return signed_in


def browse(person: SignedIn, *, age: timedelta = timedelta()) -> Client:
    """Return the browser of a person who authenticated that long ago."""
    client = person.client()
    session = client.session
    session[ASSURANCE_KEY] = build_assurance_entry(acr="", auth_time=clock.now() - age)
    session.save()
    return client


def list_decisions() -> list[tuple[str, str, str, dict[str, Any]]]:
    events = AuditEvent.objects.filter(action__startswith="access.").order_by("id")
    return [(event.action, event.actor, event.resource, json.loads(event.detail)) for event in events]


@pytest.mark.parametrize("name", PAGES)
def test_g11_grant_of_a_page_is_one_event_with_its_name(name: str, person: SignedIn) -> None:
    assert browse(person).get(f"/{name}/{person.user.pk}/").status_code == 200
    assert list_decisions() == [("access.granted", str(person.user.pk), "", {"page": name})]
    (event,) = AuditEvent.objects.filter(action="access.granted")
    assert (event.session, event.outcome, event.purpose) == (str(person.session.pk), "success", "")


@pytest.mark.parametrize("name", CHARTS)
def test_g11_grant_of_a_record_is_not_recorded_twice(name: str, person: SignedIn) -> None:
    pk = person.user.pk
    assert browse(person).get(f"/{name}/{pk}/").status_code == 200
    assert list_decisions() == [("access.granted", str(pk), f"Patient/{pk}", {})]
    assert len(RAN) == 1


@pytest.mark.parametrize("name", CACHED)
def test_g11_page_is_never_shown_from_a_cache(name: str, person: SignedIn) -> None:
    cache.clear()
    client = browse(person)
    for number in (1, 2):
        assert client.get(f"/{name}/7/")["Cache-Control"] == "no-store"
        assert (len(RAN), len(list_decisions())) == (number, number)


def test_g11_unnamed_page_is_recorded_by_its_view(person: SignedIn) -> None:
    browse(person).get("/unnamed/7/")
    assert [detail for *_, detail in list_decisions()] == [{"page": "tests.unit.access.test_recorded_grants.run"}]


@pytest.mark.parametrize("name", PAGES)
def test_g11_refusal_names_the_page_and_is_the_only_event(name: str, person: SignedIn) -> None:
    assert browse(person, age=timedelta(days=2)).get(f"/{name}/7/").status_code == 401
    assert (list_decisions(), RAN) == ([("access.denied", str(person.user.pk), "", {"page": name})], [])


@pytest.mark.parametrize("name", [*PAGES, *CHARTS])
def test_g11_view_does_not_run_without_its_event(name: str, person: SignedIn) -> None:
    client = browse(person)
    with audit_database_fails():
        assert client.get(f"/{name}/{person.user.pk}/").status_code == 503
    assert RAN == []
    assert client.get(f"/{name}/{person.user.pk}/").status_code == 200


def test_g11_grant_costs_one_insert(person: SignedIn) -> None:
    client = browse(person)
    counts = []
    for page in ("unguarded", "unguarded", "function"):
        with CaptureQueriesContext(connections["phi_audit"]) as queries:
            assert client.get(f"/{page}/7/").status_code == 200
        counts.append([query["sql"].split()[0] for query in queries])
    assert counts == [[], [], ["INSERT"]]


def test_g11_documented_function_lists_the_views_without_a_guard() -> None:
    names: dict[str, Any] = {}
    exec(block("guard-a-view", "unguarded"), names)
    assert list(names["list_unguarded"](urlpatterns[:-1])) == ["unguarded/<int:pk>/"]
    with override_settings(ROOT_URLCONF="tests.support.api_views"):
        unguarded = [route for route in names["list_unguarded"]() if not route.startswith("oidc/")]
    assert unguarded == ["whoami/", "sessionfirst/", "staff/", "either/", "both/<int:pk>/", "cached/"]
