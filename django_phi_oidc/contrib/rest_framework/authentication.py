"""Authentication by an access token of a provider, for the user on whose behalf it is used. It writes nothing.

UserInfo is not used, because it does not say for which audience a token was issued.
Spec: RFC 6750, RFC 9068, RFC 7662.
"""

import re
from datetime import datetime
from typing import Any

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
from ...crypto import keyring
from ...errors import (
    AccessTokenInvalid,
    Code,
    IntrospectionFailed,
    KeyNotFound,
    KeyRingError,
    MetadataError,
    SubjectAltered,
    SubjectKeyMissing,
    TransportError,
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
from ...sessions.token_revocation import is_revoked
from ...subjects.linking import find_linked_subject
from .exceptions import REALM, TOKEN_MISPLACED, invalid_request, invalid_token, report_api_refusal, service_unavailable
from .scoped_user import ScopedUser

PROVIDER_TIMEOUT_SECONDS = 2.0
"""For each call to the provider. Short, because an API client is waiting."""
FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
TOKEN_PARAMETER = "access_token"
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@sensitive_variables("token")
def verify_bearer_token(token: str, *, audience: ResourceServer, now: datetime) -> AccessToken:
    """Return the verified access token, by its signature or by introspection, as the API is declared.

    Raises: AccessTokenInvalid; TransportError, MetadataError, IntrospectionFailed, if it could not be verified.
    Spec: RFC 9068 4; RFC 7662 2.
    """
    provider, timeout = get_provider(audience.provider.name), PROVIDER_TIMEOUT_SECONDS
    if audience.api.method == "introspection":
        return introspect_token(token, audience=audience, provider=provider, now=now, timeout_seconds=timeout)
    try:
        keys = provider.get_key_set(timeout_seconds=timeout)
        return verify_access_token(token, keys=keys, resource_server=audience, now=now)
    except KeyNotFound as error:
        # Not certain: the keys could not be fetched again now, so the provider may have a newer key.
        if not error.is_certain:
            raise
        raise AccessTokenInvalid(error.code) from error


class BearerAuthentication(BaseAuthentication):
    """Authenticates `Authorization: Bearer` with an access token of a provider that `API` declares.

    `request.user` is the linked user, limited to the permissions that the token's scopes map to. `request.auth` is an
    AccessToken. If another authentication class precedes this one, a request without credentials gets its challenge, or
    403 if it has none.
    """

    @sensitive_variables()
    def authenticate(self, request: Request) -> tuple[Any, AccessToken] | None:
        """Return the user and the verified token; None without a token.

        Raises: APIRequestRefused: 401 for an invalid token, 400 for one outside of its header, 503 for one that could
        not be verified.
        """
        origin = Origin(
            client_ip=get_client_ip(request._request, trusted_proxies=conf.trusted_proxies()),
            request_id=get_request_id(request._request),
        )
        if _has_misplaced_token(request):
            report_api_refusal(TOKEN_MISPLACED, origin=origin)
            raise invalid_request()
        scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != BEARER_TOKEN_TYPE:
            return None
        # Django's cache middleware looks pages up by URL, and would serve them to requests without a token.
        mark_response_private(request._request)
        token, provider = credentials.strip(" "), ""
        try:
            if not _B64TOKEN.fullmatch(token):
                raise AccessTokenInvalid("token_malformed")
            providers = conf.providers()
            # An API without a declared provider is a check error (E026).
            apis = [ResourceServer(api, providers[name]) for name, api in conf.apis().items() if name in providers]
            audience = get_resource_server(token, apis)
            provider = audience.provider.name
            now = clock.now()
            access_token = verify_bearer_token(token, audience=audience, now=now)
            if is_revoked(token, now=now):
                raise AccessTokenInvalid("token_revoked")
            keys = keyring.get_keys("subject")
            subject = find_linked_subject(issuer=access_token.issuer, sub=access_token.sub, keys=keys)
            if subject is None:
                raise AccessTokenInvalid(Code.NOT_PROVISIONED)
            if not subject.user.is_active:
                raise AccessTokenInvalid(Code.USER_INACTIVE)
        except (AccessTokenInvalid, SubjectAltered) as error:
            rule = error.rule if isinstance(error, AccessTokenInvalid) else error.code
            report_api_refusal(rule, origin=origin, provider=provider)
            raise invalid_token() from None
        except (TransportError, MetadataError, IntrospectionFailed, SubjectKeyMissing, KeyRingError) as error:
            report_api_refusal(error.code, origin=origin, provider=provider, is_server_error=True)
            raise service_unavailable() from error
        return ScopedUser(subject.user, audience.api.get_permissions(access_token.scopes)), access_token

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge to a request without credentials. Spec: RFC 6750 3."""
        return format_bearer_challenge(realm=REALM)


def _has_misplaced_token(request: Request) -> bool:
    """Return whether a token is in the URL or a form. Elsewhere the name has no meaning. Spec: RFC 6750 2.2, 2.3."""
    if TOKEN_PARAMETER in request.query_params:
        return True
    http_request = request._request
    if http_request.META.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != FORM_CONTENT_TYPE:
        return False
    # Django parses forms of POST requests only.
    return TOKEN_PARAMETER in (http_request.POST if http_request.method == "POST" else QueryDict(http_request.body))
