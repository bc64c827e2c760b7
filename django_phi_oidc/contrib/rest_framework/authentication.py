"""Who asks an API of the portal's own: the person on whose behalf an access token of the OP is used.

Spec: RFC 6750, RFC 9068, RFC 7662. What UserInfo says is never asked: it does not say for whom a token is.

From an access token to the account of the person on whose behalf it is used; nobody is made, and nothing written.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.http import QueryDict
from django.views.decorators.debug import sensitive_variables
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from ... import conf
from ..._internal import clock
from ...access.no_store import mark_response_private
from ...access.responses import format_bearer_challenge
from ...audit.events import Origin
from ...audit.request_context import get_client_ip, get_request_id
from ...config.apis import APIDeclaration
from ...config.providers import ProviderDeclaration
from ...crypto import keyring
from ...crypto.keyring import SymmetricKey
from ...errors import (
    AccessTokenInvalid,
    IntrospectionFailed,
    KeyNotFound,
    KeyRingError,
    MetadataError,
    NotProvisioned,
    PhiOidcError,
    SubjectKeyMissing,
    TransportError,
    UserInactive,
)
from ...oidc.access_token import (
    BEARER_TOKEN_TYPE,
    AccessToken,
    ResourceServer,
    get_resource_server,
    verify_access_token,
)
from ...provider.introspection_cache import introspect_token
from ...provider.registry import get_provider
from ...subjects.linking import find_linked_subject
from .exceptions import REALM, TOKEN_MISPLACED, invalid_request, invalid_token, report_refusal, service_unavailable
from .scoped_user import ScopedUser

PROVIDER_TIMEOUT_SECONDS = 2.0
"""Seconds for each call to the OP: somebody waits for the API meanwhile."""


def list_declared_apis(
    apis: Mapping[str, APIDeclaration], providers: Mapping[str, ProviderDeclaration]
) -> list[ResourceServer]:
    """Return the declared APIs with their providers; one without is nobody's (E026)."""
    return [ResourceServer(api, providers[name]) for name, api in apis.items() if name in providers]


@sensitive_variables("token")
def verify_bearer_token(token: str, *, audience: ResourceServer, now: datetime) -> AccessToken:
    """Return what the OP says of a token that is good for this API now: by its signature, or when it is asked.

    Raises: AccessTokenInvalid; TransportError, MetadataError, IntrospectionFailed, when nobody can say.
    Spec: RFC 9068 4; RFC 7662 2.
    """
    provider = get_provider(audience.provider.name)
    if audience.api.method == "introspection":
        return introspect_token(token, audience=audience, provider=provider, now=now, deadline=PROVIDER_TIMEOUT_SECONDS)
    try:
        return verify_access_token(
            token, keys=provider.get_key_set(deadline=PROVIDER_TIMEOUT_SECONDS), resource_server=audience, now=now
        )
    except KeyNotFound as fault:
        # The OP's key may be newer than what we have, as long as it was not asked just now.
        if not fault.is_certain:
            raise
        raise AccessTokenInvalid(fault.code) from fault


def get_linked_user(token: AccessToken, *, keys: Sequence[SymmetricKey]) -> AbstractBaseUser:
    """Return the active account that the person of the token is linked to, at one SELECT.

    keys: the subject keys.
    Raises: AccessTokenInvalid; SubjectKeyMissing, when nobody can be told to be unknown.
    """
    subject = find_linked_subject(issuer=token.issuer, sub=token.sub, keys=keys)
    if subject is None:
        raise AccessTokenInvalid(NotProvisioned.code)
    if not subject.user.is_active:
        raise AccessTokenInvalid(UserInactive.code)
    return subject.user


FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
TOKEN_PARAMETER = "access_token"
VERIFICATION_UNAVAILABLE_ERRORS: tuple[type[PhiOidcError], ...] = (
    *(TransportError, MetadataError, IntrospectionFailed),
    *(SubjectKeyMissing, KeyRingError),
)
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class BearerAuthentication(BaseAuthentication):
    """Takes `Authorization: Bearer` with an access token of a provider that `API` declares.

    The user is the account that the person is linked to, with the permissions that the token's scopes map to, of those
    that the account has; `request.auth` is an AccessToken. Where another way to authenticate is declared before this
    one, a request without credentials gets that one's challenge, or 403 where it has none.
    """

    @sensitive_variables()
    def authenticate(self, request: Request) -> tuple[Any, AccessToken] | None:
        """Return the user and what the OP says of the token; None when there is no token.

        Raises: Refusal: 401 for a token that is not good here, 400 for one outside of its header, 503 when nobody can
        say, and then nobody is let in.
        """
        origin = Origin(
            client_ip=get_client_ip(request._request, trusted_proxies=conf.trusted_proxies()),
            request_id=get_request_id(request._request),
        )
        if _has_misplaced_token(request):
            report_refusal(TOKEN_MISPLACED, origin=origin)
            raise invalid_request()
        scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != BEARER_TOKEN_TYPE:
            return None
        # Django's cache finds pages by their address, and would show them to whoever has no token.
        mark_response_private(request._request)
        return _authenticate_token(credentials.strip(" "), origin=origin)

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge to a request without credentials. Spec: RFC 6750 3."""
        return format_bearer_challenge(realm=REALM)


@sensitive_variables()
def _authenticate_token(token: str, *, origin: Origin) -> tuple[Any, AccessToken]:
    provider = ""
    try:
        if not _B64TOKEN.fullmatch(token):
            raise AccessTokenInvalid("token_malformed")
        meant = get_resource_server(token, list_declared_apis(conf.apis(), conf.providers()))
        provider = meant.provider.name
        verified = verify_bearer_token(token, audience=meant, now=clock.now())
        user = get_linked_user(verified, keys=keyring.get_keys("subject"))
    except AccessTokenInvalid as fault:
        report_refusal(fault.rule, origin=origin, provider=provider)
        raise invalid_token() from None
    except VERIFICATION_UNAVAILABLE_ERRORS as fault:
        report_refusal(fault.code, origin=origin, provider=provider, is_server_error=True)
        raise service_unavailable() from fault
    return ScopedUser(user, meant.api.get_permissions(verified.scopes)), verified


def _has_misplaced_token(request: Request) -> bool:
    """Say whether a token stands in the URL or in a form. In other bodies the name says nothing.

    Spec: RFC 6750 2.2, 2.3.
    """
    if TOKEN_PARAMETER in request.query_params:
        return True
    http = request._request
    if http.META.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != FORM_CONTENT_TYPE:
        return False
    # Django reads the forms of POST alone.
    return TOKEN_PARAMETER in (http.POST if http.method == "POST" else QueryDict(http.body))
