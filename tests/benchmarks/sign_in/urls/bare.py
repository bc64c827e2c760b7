"""The baseline: the minimal Django view for a person who signs in with OpenID Connect.

One token request on a persistent connection; signature, issuer, audience, times and nonce of the ID Token; the user by
`sub`; `auth.login`. No PKCE, no single use of the state across processes, no separate subject, no stored claims or
tokens, no audit.
"""

from secrets import token_urlsafe
from urllib.parse import urlencode

import jwt
import urllib3
from django.conf import settings
from django.contrib import auth
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path
from django.utils.crypto import constant_time_compare

from tests.benchmarks.sign_in.urls.home import urlpatterns as home

pool = urllib3.PoolManager(ca_certs=settings.CA_BUNDLE)
jwks = pool.request("GET", f"{settings.ISSUER}/jwks").json()
key = jwt.PyJWK(jwks["keys"][0])


def begin(request: HttpRequest) -> HttpResponse:
    """Redirect the browser to the provider."""
    request.session["sign_in"] = {"state": token_urlsafe(32), "nonce": token_urlsafe(32)}
    parameters = {
        "response_type": "code",
        "scope": "openid",
        "client_id": settings.CLIENT_ID,
        "redirect_uri": request.build_absolute_uri("/callback/"),
        **request.session["sign_in"],
    }
    return HttpResponseRedirect(f"{settings.ISSUER}/authorize?{urlencode(parameters)}")


def callback(request: HttpRequest) -> HttpResponse:
    """Sign the person in."""
    stored = request.session.pop("sign_in")
    if not constant_time_compare(stored["state"], request.GET["state"]):
        raise PermissionDenied
    fields = {
        "grant_type": "authorization_code",
        "code": request.GET["code"],
        "redirect_uri": request.build_absolute_uri("/callback/"),
        "client_id": settings.CLIENT_ID,
        "client_secret": settings.CLIENT_SECRET,
    }
    response = pool.request("POST", f"{settings.ISSUER}/token", fields=fields, encode_multipart=False)
    claims = jwt.decode(
        response.json()["id_token"], key, algorithms=["RS256"], issuer=settings.ISSUER, audience=settings.CLIENT_ID
    )
    if not constant_time_compare(claims["nonce"], stored["nonce"]):
        raise PermissionDenied
    auth.login(request, auth.get_user_model().objects.get_or_create(username=claims["sub"])[0])
    return HttpResponseRedirect(settings.LOGIN_REDIRECT_URL)


def leave(request: HttpRequest) -> HttpResponse:
    """Sign out, and send two revocation requests with placeholders, since no tokens are stored."""
    auth.logout(request)
    for hint in ("refresh_token", "access_token"):
        pool.request(
            "POST",
            f"{settings.ISSUER}/revoke",
            fields={
                "token": hint,
                "token_type_hint": hint,
                "client_id": settings.CLIENT_ID,
                "client_secret": settings.CLIENT_SECRET,
            },
            encode_multipart=False,
        )
    return HttpResponseRedirect(settings.LOGIN_REDIRECT_URL)


urlpatterns = [*home, path("begin/", begin), path("callback/", callback), path("leave/", leave)]
