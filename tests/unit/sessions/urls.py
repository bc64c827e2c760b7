"""The tests' host project, with pages that lose a session in every possible way."""

import uuid

from django.contrib import auth
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.request_context import SESSION_KEY
from django_phi_oidc.decorators import passive
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason

OTHER_SESSION = str(uuid.UUID(int=9))


def public(request: HttpRequest) -> HttpResponse:
    return HttpResponse("for everybody")


@passive
def poll(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing new")


@login_not_required
def open_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"for {request.user.get_username() or 'everybody'}")


def watched(request: HttpRequest) -> HttpResponse:
    request.phi_oidc_watched = True  # type: ignore[attr-defined]  # as the template tag does
    return HttpResponse("a page that leaves by itself")


def data(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


def password(request: HttpRequest) -> HttpResponse:
    user = get_user_model()._default_manager.get(username="local")
    auth.login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse("signed in by a password")


def ended_meanwhile(request: HttpRequest) -> HttpResponse:
    session_id = uuid.UUID(request.session[SESSION_KEY])
    end_session(session_id, EndReason.ADMINISTRATOR, origin=Origin(), now=clock.now())
    return HttpResponse("answered all the same")


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
    *(path(f"{view.__name__}/", view) for view in (poll, open_page, watched, data, password, ended_meanwhile)),
    *(
        path(f"{view.__name__}/", view)
        for view in (public, flush, forget, replace, cycle, crash, leave, aflush, areplace, apublic, aleave)
    ),
]
