"""The tests' host project, with pages that lose a session in every way."""

import uuid

from django.contrib import auth
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_phi_oidc.audit.request import SESSION_KEY

OTHER_SESSION = str(uuid.UUID(int=9))


def public(request: HttpRequest) -> HttpResponse:
    return HttpResponse("for everybody")


def flush(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return HttpResponse("flushed")


def forget(request: HttpRequest) -> HttpResponse:
    del request.session[SESSION_KEY]
    return HttpResponse("forgotten")


def replace(request: HttpRequest) -> HttpResponse:
    request.session[SESSION_KEY] = OTHER_SESSION
    return HttpResponse("replaced")


def cycle(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    return HttpResponse("cycled")


def crash(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    raise ValueError("after the flush")


def leave(request: HttpRequest) -> HttpResponse:
    auth.logout(request)
    return HttpResponse("left")


async def aflush(request: HttpRequest) -> HttpResponse:
    await request.session.aflush()
    return HttpResponse("flushed")


async def areplace(request: HttpRequest) -> HttpResponse:
    await request.session.aset(SESSION_KEY, OTHER_SESSION)
    return HttpResponse("replaced")


async def apublic(request: HttpRequest) -> HttpResponse:
    return HttpResponse("for everybody")


async def aleave(request: HttpRequest) -> HttpResponse:
    await auth.alogout(request)
    return HttpResponse("left")


urlpatterns = [
    path("oidc/", include("django_phi_oidc.urls")),
    *(
        path(f"{view.__name__}/", view)
        for view in (public, flush, forget, replace, cycle, crash, leave, aflush, areplace, apublic, aleave)
    ),
]
