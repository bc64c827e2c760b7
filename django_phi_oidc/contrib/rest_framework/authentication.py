"""Authentication by an access token of a provider, for the user on whose behalf it is used.

It writes nothing but that a DPoP proof was used. Spec: RFC 6750, RFC 9449.
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
from ...audit import conf as audit_conf
from ...audit.events import Origin
from ...audit.request_context import get_client_ip, get_request_id
from ...crypto import keyring
from ...errors import (
    Code,
    KeyRingError,
    MetadataError,
    SubjectAltered,
    SubjectKeyMissing,
    TransportError,
)
from ...oidc.dpop import DPOP_TOKEN_TYPE
from ...sessions.token_revocation import is_revoked
from ...subjects.linking import find_linked_subject
from ..apis import conf as apis_conf
from ..apis.access_token import (
    BEARER_TOKEN_TYPE,
    AccessToken,
    ResourceServer,
    get_resource_server,
)
from ..apis.api_tokens import verify_request_proof, verify_request_token
from ..apis.declaration import APIDeclaration
from ..apis.dpop_proof import NONCE_REQUIRED, accept_proof, create_nonce, format_dpop_challenge
from ..common.api_errors import AccessTokenInvalid, DPoPProofInvalid, IntrospectionFailed
from .exceptions import (
    REALM,
    TOKEN_MISPLACED,
    invalid_proof,
    invalid_request,
    invalid_token,
    nonce_required,
    report_api_refusal,
    service_unavailable,
)
from .scoped_user import ScopedUser

FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
TOKEN_PARAMETER = "access_token"
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class BearerAuthentication(BaseAuthentication):
    """Authenticates `Authorization: Bearer` or `DPoP` with an access token of a provider that `API`
    declares.

    A token that is bound to a key is accepted only with a proof of that key, and a proof only with
    such a token.

    `request.user` is the linked user, limited to the permissions that the token's scopes map to.
    `request.auth` is an AccessToken. If another authentication class precedes this one, a request
    without credentials gets its challenge, or 403 if it has none.
    """

    @sensitive_variables()
    def authenticate(self, request: Request) -> tuple[Any, AccessToken] | None:
        """Return the user and the verified token; None without a token.

        Raises: APIRequestRefused: 401 for an invalid token, 400 for one outside of its header, 503
        for one that could not be verified.
        """
        origin = Origin(
            client_ip=get_client_ip(request._request, trusted_proxies=audit_conf.trusted_proxies()),
            request_id=get_request_id(request._request),
        )
        if _has_misplaced_token(request):
            report_api_refusal(TOKEN_MISPLACED, origin=origin)
            raise invalid_request()
        scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        is_dpop = scheme.lower() == DPOP_TOKEN_TYPE
        if scheme.lower() != BEARER_TOKEN_TYPE and not is_dpop:
            return None
        # Django's cache middleware looks pages up by URL, and would serve them to requests without
        # a token.
        mark_response_private(request._request)
        token = credentials.strip(" ")
        provider = ""
        try:
            if not _B64TOKEN.fullmatch(token):
                raise AccessTokenInvalid("token_malformed")
            providers = conf.providers()
            apis = []
            for name, api in apis_conf.apis().items():
                # An API without a declared provider is a check error (E026).
                if name in providers:
                    apis.append(ResourceServer(api, providers[name]))
            audience = get_resource_server(token, apis)
            provider = audience.provider.name
            api = apis_conf.apis()[provider]
            now = clock.now()

            proof = None
            if is_dpop:
                proof = verify_request_proof(request._request, token=token, now=now)

            access_token = verify_request_token(
                request._request, token=token, audience=audience, proof=proof, now=now
            )
            if is_revoked(token, now=now):
                raise AccessTokenInvalid("token_revoked")
            keys = keyring.get_keys("subject")
            subject = find_linked_subject(
                issuer=access_token.issuer, sub=access_token.sub, keys=keys
            )
            if subject is None:
                raise AccessTokenInvalid(Code.NOT_PROVISIONED)
            if not subject.user.is_active:
                raise AccessTokenInvalid(Code.USER_INACTIVE)
            if proof:
                # Last: only the request that is accepted uses the proof up.
                accept_proof(proof, requires_nonce=api.dpop_nonce, now=now)
                self._send_nonce(request, apis_conf.apis()[provider], now=now)
        except (AccessTokenInvalid, SubjectAltered) as error:
            if isinstance(error, AccessTokenInvalid):
                rule = error.rule
            else:
                rule = error.code

            if rule == NONCE_REQUIRED:
                # The first request of each client, and no attack: it is neither recorded nor
                # logged.
                self._send_nonce(request, apis_conf.apis()[provider], now=now)
                raise nonce_required() from None
            report_api_refusal(rule, origin=origin, provider=provider)
            if isinstance(error, DPoPProofInvalid):
                raise invalid_proof() from None
            raise invalid_token(is_dpop=is_dpop) from None
        except (
            TransportError,
            MetadataError,
            IntrospectionFailed,
            SubjectKeyMissing,
            KeyRingError,
        ) as error:
            report_api_refusal(error.code, origin=origin, provider=provider, is_server_error=True)
            raise service_unavailable() from error
        return ScopedUser(subject.user, api.get_permissions(access_token.scopes)), access_token

    def authenticate_header(self, request: Request) -> str:
        """Return the challenges to a request without credentials. Spec: RFC 6750 3; RFC 9449
        7.1.
        """
        return f"{format_bearer_challenge(realm=REALM)}, {format_dpop_challenge(realm=REALM)}"

    def _send_nonce(self, request: Request, api: APIDeclaration, *, now: datetime) -> None:
        """Add the nonce for the next proof to the response, if the API requires nonces. Spec: RFC
        9449 8.2, 9.
        """
        view: Any = getattr(request, "parser_context", {}).get("view")
        if api.dpop_nonce and view is not None:
            view.headers["DPoP-Nonce"] = create_nonce(now)


def _has_misplaced_token(request: Request) -> bool:
    """Return whether a token is in the URL or a form. Elsewhere the name has no meaning. Spec: RFC
    6750 2.2, 2.3.
    """
    if TOKEN_PARAMETER in request.query_params:
        return True
    http_request = request._request
    if (
        http_request.META.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        != FORM_CONTENT_TYPE
    ):
        return False
    # Django parses forms of POST requests only.
    return TOKEN_PARAMETER in (
        http_request.POST if http_request.method == "POST" else QueryDict(http_request.body)
    )
