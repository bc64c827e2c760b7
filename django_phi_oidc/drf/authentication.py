"""Who asks an API of the portal's own: the person on whose behalf an access token of the OP is used.

Spec: RFC 6750, RFC 9068, RFC 7662. What UserInfo says is never asked: it does not say for whom a token is.
"""

import re
from typing import Any

from django.http import QueryDict
from django.views.decorators.debug import sensitive_variables
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from .. import clock, conf, keyring
from ..access.answering import bearer_challenge
from ..access.responding import keep_private
from ..audit.events import Origin
from ..audit.request import client_ip, request_id
from ..errors import (
    AccessTokenInvalid,
    IntrospectionFailed,
    KeyRingError,
    MetadataError,
    PhiOidcError,
    SubjectKeyMissing,
    TransportError,
)
from ..oidc.access_token import BEARER, AccessToken, addressee
from .narrowing import NarrowedUser
from .refusing import REALM, TOKEN_MISPLACED, invalid_request, invalid_token, tell, unavailable
from .verifying import find_user, known, verify

FORM = "application/x-www-form-urlencoded"
PARAMETER = "access_token"
NOBODY_CAN_SAY: tuple[type[PhiOidcError], ...] = (
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
            client_ip=client_ip(request._request, trusted=conf.trusted_proxies()),
            request_id=request_id(request._request),
        )
        if _is_misplaced(request):
            tell(TOKEN_MISPLACED, origin=origin)
            raise invalid_request()
        scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != BEARER:
            return None
        # Django's cache finds pages by their address, and would show them to whoever has no token.
        keep_private(request._request)
        return _let_in(credentials.strip(" "), origin=origin)

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge to a request without credentials. Spec: RFC 6750 3."""
        return bearer_challenge(realm=REALM)


@sensitive_variables()
def _let_in(token: str, *, origin: Origin) -> tuple[Any, AccessToken]:
    provider = ""
    try:
        if not _B64TOKEN.fullmatch(token):
            raise AccessTokenInvalid("token_malformed")
        meant = addressee(token, known(conf.apis(), conf.providers()))
        provider = meant.provider.name
        verified = verify(token, meant=meant, now=clock.now())
        user = find_user(verified, keys=keyring.keys("SUBJECT_KEYS"))
    except AccessTokenInvalid as fault:
        tell(fault.rule, origin=origin, provider=provider)
        raise invalid_token() from None
    except NOBODY_CAN_SAY as fault:
        tell(fault.code, origin=origin, provider=provider, is_fault=True)
        raise unavailable() from fault
    return NarrowedUser(user, meant.api.permissions_of(verified.scopes)), verified


def _is_misplaced(request: Request) -> bool:
    """Say whether a token stands in the URL or in a form. In other bodies the name says nothing.

    Spec: RFC 6750 2.2, 2.3.
    """
    if PARAMETER in request.query_params:
        return True
    http = request._request
    if http.META.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != FORM:
        return False
    # Django reads the forms of POST alone.
    return PARAMETER in (http.POST if http.method == "POST" else QueryDict(http.body))
