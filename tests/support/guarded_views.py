"""An authentication backend with object permissions that tests set, and guarded views."""

from typing import Any

from asgiref.sync import iscoroutinefunction
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import include, path
from django.views.decorators.cache import cache_page
from django.views.generic import View

from django_phi_oidc.access.mixins import PHIAccessMixin
from django_phi_oidc.decorators import phi_access

PERMISSION = "portal.view_chart"
CACHEABLE = {"Cache-Control": "public, max-age=600"}
HELD: set[tuple[int, int | None]] = set()
"""Who has the permission, and on which patient; None: without an object."""
ASKED: list[int | None] = []
RAN: list[str] = []


class Wards(ModelBackend):
    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        object_pk = None if obj is None else obj.pk
        ASKED.append(object_pk)
        return perm == PERMISSION and (user_obj.pk, object_pk) in HELD


def patient(request: HttpRequest, pk: int) -> Any:
    return get_user_model()._default_manager.get(pk=pk)


def resource(request: HttpRequest, pk: int) -> str:
    return f"Patient/{pk}"


def get_stated_purpose(request: HttpRequest, pk: int) -> Any:
    return request.GET.get("purpose")


def record_run(name: str) -> HttpResponse:
    RAN.append(name)
    return HttpResponse("the chart", headers=CACHEABLE)


def guard(**changed: Any) -> Any:
    arguments = {
        "purpose": get_stated_purpose,
        "purposes": ["TREAT", "ETREAT"],
        "resource": resource,
        "permission": PERMISSION,
    }
    return phi_access(**{**arguments, "obj": patient, **changed})


@guard()
def chart(request: HttpRequest, pk: int) -> HttpResponse:
    return record_run("chart")


@guard()
async def achart(request: HttpRequest, pk: int) -> HttpResponse:
    return record_run("achart")


@guard(obj=None)
def without_object(request: HttpRequest, pk: int) -> HttpResponse:
    return record_run("without_object")


@guard(purpose="TREAT", purposes=())
def fixed(request: HttpRequest, pk: int) -> HttpResponse:
    return record_run("fixed")


class Chart(PHIAccessMixin, View):
    permission = PERMISSION
    purposes = ("TREAT", "ETREAT")

    def get_resource(self) -> str:
        return f"Patient/{self.kwargs['pk']}"

    def get_purpose(self) -> Any:
        return self.request.GET.get("purpose")

    def get_permission_object(self) -> Any:
        return patient(self.request, **self.kwargs)

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return record_run("class")


class AChart(Chart):
    async def get(self, request: HttpRequest, pk: int) -> HttpResponse:  # type: ignore[override]
        return record_run("aclass")


@guard(obj=lambda request, pk: None)
def missing(request: HttpRequest, pk: int) -> HttpResponse:
    return record_run("missing")


def _raise_404(request: HttpRequest, pk: int) -> Any:
    raise Http404


@guard(obj=_raise_404)
def not_found(request: HttpRequest, pk: int) -> HttpResponse:
    return record_run("not_found")


@guard(resource=lambda request, pk: request.GET["resource"])
def resource_from_query(request: HttpRequest, pk: int) -> HttpResponse:
    return record_run("resource_from_query")


@guard()
@cache_page(600)
def cached_inside(request: HttpRequest, pk: int) -> HttpResponse:
    RAN.append("cached_inside")
    return HttpResponse("the chart")


@cache_page(600)
@guard()
def cached_outside(request: HttpRequest, pk: int) -> HttpResponse:
    RAN.append("cached_outside")
    return HttpResponse("the chart")


@guard()
def template(request: HttpRequest, pk: int) -> HttpResponse:
    return TemplateResponse(request, engines["django"].from_string("the chart"), headers=CACHEABLE)


@guard()
def stream(request: HttpRequest, pk: int) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter(["the ", "chart"]), headers=CACHEABLE)


def unguarded(request: HttpRequest, pk: int) -> HttpResponse:
    assert request.user.is_authenticated
    patient(request, pk)
    return HttpResponse("no chart", headers=CACHEABLE)


VIEWS = (
    chart,
    achart,
    without_object,
    fixed,
    missing,
    not_found,
    resource_from_query,
    cached_inside,
    cached_outside,
    template,
    stream,
    unguarded,
)
assert iscoroutinefunction(achart)
urlpatterns = [
    *(path(f"{view.__name__}/<int:pk>/", view) for view in VIEWS),
    path("class/<int:pk>/", Chart.as_view()),
    path("aclass/<int:pk>/", AChart.as_view()),
    path("oidc/", include("django_phi_oidc.urls")),
]
