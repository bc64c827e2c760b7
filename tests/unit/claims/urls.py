"""Pages of a host project that reveal a claim in each way, with their own Cache-Control."""

from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import path
from django.views.decorators.cache import cache_control, cache_page
from django.views.generic import TemplateView

from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.claims.masking import MaskedClaim
from django_phi_oidc.claims.views import RevealMixin
from django_phi_oidc.errors import RevealRefused

CACHEABLE = {"Cache-Control": "public, max-age=600"}
TAG = '{% load phi_oidc %}Born on {% reveal claim purpose="TREAT" %}.'
SERVED: list[str] = []
"""The names of the cacheable views that ran."""


def reveal_birthdate(request: HttpRequest) -> Any:
    return reveal(Actor.from_request(request), request.user, "birthdate", purpose="TREAT")


def context(request: HttpRequest) -> dict[str, Any]:
    return {"claim": MaskedClaim(Actor.from_request(request), request.user, "birthdate")}


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(reveal_birthdate(request), headers=CACHEABLE)


async def aplain(request: HttpRequest) -> HttpResponse:
    await request.auser()
    return HttpResponse(await sync_to_async(reveal_birthdate)(request), headers=CACHEABLE)


def template(request: HttpRequest) -> HttpResponse:
    return TemplateResponse(request, engines["django"].from_string(TAG), context(request), headers=CACHEABLE)


def masked(request: HttpRequest) -> HttpResponse:
    page = engines["django"].from_string("Born on {{ claim }}.")
    return TemplateResponse(request, page, context(request), headers=CACHEABLE)


def refused(request: HttpRequest) -> HttpResponse:
    try:
        reveal(Actor.from_request(request), request.user, "birthdate", purpose="HMARKT")
    except RevealRefused:
        return HttpResponse("refused", headers=CACHEABLE)
    raise AssertionError


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        yield "Born on "
        yield reveal_birthdate(request)

    return StreamingHttpResponse(parts(), headers=CACHEABLE)


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    await request.auser()

    async def parts() -> AsyncIterator[str]:
        yield "Born on "
        yield await sync_to_async(reveal_birthdate)(request)

    return StreamingHttpResponse(parts(), headers=CACHEABLE)


def public_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter(["for ", "everybody"]), headers=CACHEABLE)


def file(request: HttpRequest) -> FileResponse:
    assert request.user.is_authenticated
    return FileResponse(BytesIO(b"a form to print"), headers=CACHEABLE)


@cache_page(600)
@cache_control(public=True)
def cached(request: HttpRequest) -> HttpResponse:
    SERVED.append("cached")
    return HttpResponse(reveal_birthdate(request))


@cache_page(600)
def cached_template(request: HttpRequest) -> HttpResponse:
    SERVED.append("cached_template")
    return TemplateResponse(request, engines["django"].from_string(TAG), context(request))


@cache_page(600)
def cached_public(request: HttpRequest) -> HttpResponse:
    SERVED.append("cached_public")
    return HttpResponse("for everybody")


def fail(request: HttpRequest) -> HttpResponse:
    """Fail, after a reveal for ?reveal=1, with a variable that an error report would show."""
    value = reveal_birthdate(request) if request.GET.get("reveal") else "only-a-control"
    raise RuntimeError(f"with {len(value)} characters")


def fail_in_template(request: HttpRequest) -> HttpResponse:
    page = engines["django"].from_string(TAG + "{% include missing %}")
    return TemplateResponse(request, page, {**context(request), "missing": "no-such-template.html"})


class Details(RevealMixin, TemplateView):
    """The person's own claims."""

    template_name = "claims/details.html"


class Two(Details):
    """Two claims in another order, and an undeclared one."""

    claim_names = ("address", "birthdate", "ssn")


class OfAnotherPerson(Details):
    """The claims of another person."""

    def get_person(self) -> Any:
        return get_user_model()._default_manager.get(pk=self.kwargs["pk"])


VIEWS = (plain, aplain, template, masked, refused, stream, astream, public_stream, file, cached, cached_template)
urlpatterns = [
    *(path(f"{view.__name__}/", view) for view in (*VIEWS, cached_public, fail, fail_in_template)),
    path("details/", Details.as_view()),
    path("two/", Two.as_view()),
    path("of/<int:pk>/", OfAnotherPerson.as_view()),
]
