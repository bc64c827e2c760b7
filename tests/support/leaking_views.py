"""Views of a host project that leak secrets: `leak` is the kind, `at` is the location."""

import base64
import json
import logging
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import include, path

from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.sessions.access_tokens import get_access_token

JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (json.dumps({"alg": "ES256"}).encode(), json.dumps({"sub": "a subject"}).encode(), bytes(range(64)))
)
JWE = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (json.dumps({"alg": "dir", "enc": "A256GCM"}).encode(), b"", bytes(12), bytes(40), bytes(16))
)


def taken(request: HttpRequest) -> str:
    """Return the requested secret, as a view of a host project would obtain it."""
    leak = request.GET["leak"]
    if leak == "claim":
        value: Any = reveal(Actor.from_request(request), request.user, "birthdate", purpose="TREAT")
        return str(value)
    if leak == "access_token":
        return get_access_token(request)
    return {"jwt": JWT, "jwe": JWE, "bearer": "Bearer 0123456789abcdefXYZ", "nothing": "nothing"}[leak]


def respond(request: HttpRequest) -> HttpResponse:
    value, at = taken(request), request.GET.get("at", "body")
    if at == "location":
        return HttpResponseRedirect(f"/next/?value={value}")
    if at == "log":
        logging.getLogger("hospital").warning("Looked at %s", value, extra={"seen": value})
    if at == "error":
        raise RuntimeError(f"No such thing: {value}")
    if at == "json":
        return JsonResponse({"value": value})
    if at == "stream":
        return StreamingHttpResponse(iter([value.encode()]))
    if at == "compressed":
        return HttpResponse(value, headers={"Content-Encoding": "unusual"})
    if at == "picture":
        return HttpResponse(value, content_type="image/png")
    response = HttpResponse(f"<p>{value if at == 'body' else 'a page'}</p>")
    if at == "header":
        response["X-Seen"] = value
    if at == "cookie":
        response.set_cookie("seen", value)
    return response


async def arespond(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(respond)(request)


async def arespond_awaited(request: HttpRequest) -> HttpResponse:
    """Obtain the secret in a thread, and put it into the response in the coroutine."""
    await request.auser()
    value = await sync_to_async(taken)(request)
    return HttpResponseRedirect(f"/next/?value={value}")


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a page")


urlpatterns = [
    path("page/", respond),
    path("apage/", arespond),
    path("awaited/", arespond_awaited),
    path("plain/", plain),
    path("oidc/", include("django_phi_oidc.urls")),
]
