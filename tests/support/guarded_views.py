"""A backend of a host project, which answers for objects as a test tells it, and pages that stand behind a guard."""

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
KEEP = {"Cache-Control": "public, max-age=600"}
HELD: set[tuple[int, int | None]] = set()
"""Who holds the permission, and on whom; None: on nobody in particular."""
ASKED: list[int | None] = []
RAN: list[str] = []


class Wards(ModelBackend):
    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        on = None if obj is None else obj.pk
        ASKED.append(on)
        return perm == PERMISSION and (user_obj.pk, on) in HELD


def patient(request: HttpRequest, pk: int) -> Any:
    return get_user_model()._default_manager.get(pk=pk)


def resource(request: HttpRequest, pk: int) -> str:
    return f"Patient/{pk}"


def stated(request: HttpRequest, pk: int) -> Any:
    return request.GET.get("purpose")


def ran(name: str) -> HttpResponse:
    RAN.append(name)
    return HttpResponse("the chart", headers=KEEP)


def guard(**changed: Any) -> Any:
    given = {"purpose": stated, "purposes": ["TREAT", "ETREAT"], "resource": resource, "permission": PERMISSION}
    return phi_access(**{**given, "obj": patient, **changed})


@guard()
def chart(request: HttpRequest, pk: int) -> HttpResponse:
    return ran("chart")


@guard()
async def achart(request: HttpRequest, pk: int) -> HttpResponse:
    return ran("achart")


@guard(obj=None)
def whole(request: HttpRequest, pk: int) -> HttpResponse:
    return ran("whole")


@guard(purpose="TREAT", purposes=())
def fixed(request: HttpRequest, pk: int) -> HttpResponse:
    return ran("fixed")


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
        return ran("class")


class AChart(Chart):
    async def get(self, request: HttpRequest, pk: int) -> HttpResponse:  # type: ignore[override]
        return ran("aclass")


@guard(obj=lambda request, pk: None)
def nobody(request: HttpRequest, pk: int) -> HttpResponse:
    return ran("nobody")


def _gone(request: HttpRequest, pk: int) -> Any:
    raise Http404


@guard(obj=_gone)
def gone(request: HttpRequest, pk: int) -> HttpResponse:
    return ran("gone")


@guard(resource=lambda request, pk: request.GET["resource"])
def named(request: HttpRequest, pk: int) -> HttpResponse:
    return ran("named")


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
    return TemplateResponse(request, engines["django"].from_string("the chart"), headers=KEEP)


@guard()
def stream(request: HttpRequest, pk: int) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter(["the ", "chart"]), headers=KEEP)


def unguarded(request: HttpRequest, pk: int) -> HttpResponse:
    assert request.user.is_authenticated
    patient(request, pk)
    return HttpResponse("no chart", headers=KEEP)


VIEWS = (chart, achart, whole, fixed, nobody, gone, named, cached_inside, cached_outside, template, stream, unguarded)
assert iscoroutinefunction(achart)
urlpatterns = [
    *(path(f"{view.__name__}/<int:pk>/", view) for view in VIEWS),
    path("class/<int:pk>/", Chart.as_view()),
    path("aclass/<int:pk>/", AChart.as_view()),
    path("oidc/", include("django_phi_oidc.urls")),
]
