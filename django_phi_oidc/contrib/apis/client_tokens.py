"""Access tokens that clients get for themselves, at endpoints of other apps. Spec: RFC 6749 4.4;
RFC 9068.
"""

from collections.abc import Mapping
from datetime import datetime

from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..common.accepted_tokens import ClientTokensDeclaration
from ..common.api_errors import AccessTokenInvalid, ClientTokenInvalid
from ..common.client_authentication import AuthenticatedClient
from .access_token import ResourceServer, get_resource_server
from .api_tokens import verify_request_proof, verify_request_token
from .dpop_proof import accept_proof


@sensitive_variables("token")
def authenticate_client(
    request: HttpRequest,
    token: str,
    *,
    accepted: Mapping[str, ClientTokensDeclaration],
    is_dpop: bool,
    now: datetime,
) -> AuthenticatedClient:
    """Return the client of a token that a declared client requested for itself, with the declared
    scope.

    accepted, is_dpop, errors: see `common.client_authentication.ClientAuthenticator`.
    """
    providers = conf.providers()
    servers = []
    for name, tokens in accepted.items():
        servers.append(ResourceServer(tokens, providers[name]))
    provider = ""
    try:
        server = get_resource_server(token, servers)
        provider = server.provider.name

        proof = None
        if is_dpop:
            proof = verify_request_proof(request, token=token, now=now)

        access_token = verify_request_token(
            request, token=token, audience=server, proof=proof, now=now
        )
        if accepted[provider].scope not in access_token.scopes:
            raise AccessTokenInvalid("scope_missing")
        if proof:
            # Last: only the request that is accepted uses the proof up.
            accept_proof(proof, requires_nonce=False, now=now)
    except AccessTokenInvalid as refusal:
        raise ClientTokenInvalid(refusal.rule, provider=provider) from None
    return AuthenticatedClient(provider=provider, client_id=access_token.client_id)
