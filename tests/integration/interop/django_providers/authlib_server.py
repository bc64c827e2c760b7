"""An OpenID Provider with Authlib: its grants, endpoints, URLs and client, as its documentation describes them."""

from typing import Any

from authlib.integrations.django_oauth2 import (
    AuthorizationServer,
    BearerTokenValidator,
    ResourceProtector,
    RevocationEndpoint,
)
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, RefreshTokenGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core.grants import OpenIDCode
from authlib.oidc.rpinitiated import EndSessionEndpoint
from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.views import LoginView, redirect_to_login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import engines
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from joserfc.jwk import KeySet, RSAKey

from tests.integration.interop.django_providers.authlib_models.models import OAuthClient, OAuthCode, OAuthToken

AUTH_METHODS = ("client_secret_post",)
"""Authlib does not decode the credentials of `client_secret_basic` (RFC 6749 2.3.1)."""
ISSUER = settings.AUTHLIB_ISSUER
KEY = RSAKey.import_key(settings.AUTHLIB_KEY, {"kid": "1", "use": "sig", "alg": "RS256"})
CONFIRM = engines["django"].from_string(
    '<h1>{{ title }}</h1><form method="post">{% csrf_token %}<button name="decision" value="allow">Yes</button></form>'
)
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "userinfo_endpoint": f"{ISSUER}/userinfo",
    "revocation_endpoint": f"{ISSUER}/revoke",
    "end_session_endpoint": f"{ISSUER}/logout",
    "jwks_uri": f"{ISSUER}/jwks",
    "scopes_supported": ["openid", "profile"],
    "response_types_supported": ["code"],
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": ["RS256"],
    "token_endpoint_auth_methods_supported": AUTH_METHODS,
    "code_challenge_methods_supported": ["S256"],
}


def build_claims(user: Any) -> dict[str, str]:
    return {"sub": str(user.pk), "name": user.get_full_name(), "birthdate": "1984-03-09"}


class CodeGrant(AuthorizationCodeGrant):
    """The authorization code flow with the code in the database."""

    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    def save_authorization_code(self, code: str, request: Any) -> None:
        fields = ("nonce", "code_challenge", "code_challenge_method")
        OAuthCode.objects.create(
            code=code,
            client_id=request.client.client_id,
            user=request.user,
            redirect_uri=request.payload.redirect_uri,
            scope=request.payload.scope,
            **{name: request.payload.data[name] for name in fields},
        )

    def query_authorization_code(self, code: str, client: OAuthClient) -> OAuthCode | None:
        return OAuthCode.objects.filter(code=code, client_id=client.client_id).first()

    def delete_authorization_code(self, authorization_code: OAuthCode) -> None:
        authorization_code.delete()

    def authenticate_user(self, authorization_code: OAuthCode) -> Any:
        return authorization_code.user


class RotatedRefreshGrant(RefreshTokenGrant):
    """Each refresh token can be used once."""

    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> OAuthToken | None:
        return OAuthToken.objects.filter(refresh_token=refresh_token, revoked=False).first()

    def authenticate_user(self, refresh_token: OAuthToken) -> Any:
        return refresh_token.user

    def revoke_old_credential(self, refresh_token: OAuthToken) -> None:
        refresh_token.revoked = True
        refresh_token.save()


class IDTokens(OpenIDCode):
    """ID Tokens without claims about the person."""

    def resolve_client_private_key(self, client: OAuthClient) -> RSAKey:
        return KEY

    def get_encode_header(self, client: OAuthClient) -> dict[str, str]:
        return {"alg": "RS256", "kid": "1"}

    def get_client_claims(self, client: OAuthClient) -> dict[str, Any]:
        return {"iss": ISSUER, "aud": [client.client_id]}

    def exists_nonce(self, nonce: str, request: Any) -> bool:
        return OAuthCode.objects.filter(nonce=nonce).exists()

    def generate_user_info(self, user: Any, scope: str) -> dict[str, str]:
        return {"sub": str(user.pk)}


class Revocation(RevocationEndpoint):
    """The revocation of a token and, as Authlib stores them in one row, of the other one."""

    CLIENT_AUTH_METHODS = AUTH_METHODS


class EndSession(EndSessionEndpoint):
    """The logout of the browser's session."""

    def get_server_jwks(self) -> KeySet:
        return KeySet([KEY])

    def end_session(self, end_session_request: Any) -> None:
        logout(end_session_request.request._request)


server = AuthorizationServer(OAuthClient, OAuthToken)
server.register_grant(CodeGrant, [CodeChallenge(required=True), IDTokens(require_nonce=True)])
server.register_grant(RotatedRefreshGrant)
server.register_endpoint(Revocation)
server.register_endpoint(EndSession)
protect = ResourceProtector()
protect.register_token_validator(BearerTokenValidator(OAuthToken))


def register_client(client: dict[str, Any]) -> None:
    OAuthClient.objects.create(**client)


def authorize(request: HttpRequest) -> HttpResponse:
    """Ask for the password, unless a session is sufficient, and for the consent."""
    user = request.user if request.user.is_authenticated else None
    try:
        grant = server.get_consent_grant(request, end_user=user)
    except OAuth2Error as error:
        return server.handle_error_response(None, error)
    if request.method == "POST":
        return server.create_authorization_response(request, grant_user=user, grant=grant)
    if user is None or grant.prompt == "login":
        parameters = request.GET.copy()
        parameters.pop("prompt", None)
        return redirect_to_login(f"{request.path}?{parameters.urlencode()}")
    return HttpResponse(CONFIRM.render({"title": "Share this data?"}, request))


@csrf_exempt
def token(request: HttpRequest) -> HttpResponse:
    return server.create_token_response(request)


@csrf_exempt
def revoke(request: HttpRequest) -> HttpResponse:
    return server.create_endpoint_response("revocation", request)


@protect("openid")
def userinfo(request: HttpRequest) -> HttpResponse:
    return JsonResponse(build_claims(request.oauth_token.user))


def end_session(request: HttpRequest) -> HttpResponse:
    try:
        validated = server.validate_endpoint_request("end_session", request)
    except OAuth2Error as error:
        return server.handle_error_response(None, error)
    if validated.needs_confirmation and request.method == "GET":
        return HttpResponse(CONFIRM.render({"title": "Sign out here?"}, request))
    return server.create_endpoint_response("end_session", validated) or HttpResponse("<h1>Signed out</h1>")


urlpatterns = [
    path(".well-known/openid-configuration", lambda request: JsonResponse(METADATA)),
    path("jwks", lambda request: JsonResponse(KeySet([KEY]).as_dict(private=False))),
    path("authorize", authorize),
    path("token", token),
    path("revoke", revoke),
    path("userinfo", userinfo),
    path("logout", end_session),
    path("accounts/login/", LoginView.as_view()),
]
