"""Access tokens of a provider in place of the token of a SCIM client. Spec: RFC 7644 2; RFC 6749
4.4; RFC 9068.
"""

from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...errors import AccessTokenInvalid
from ..apis.access_token import ResourceServer, get_resource_server
from ..apis.api_tokens import verify_request_proof, verify_request_token
from ..apis.dpop_proof import accept_proof
from .clients import SCIMTokenRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """A client of the provider that has authenticated by an access token."""

    name: str
    """The client_id."""
    provider: str

    @property
    def actor(self) -> str:
        """The actor of the events that the client causes. The name of a SCIM client contains no
        colon.
        """
        return f"scim:oauth:{self.name}"


@sensitive_variables("token")
def authenticate_access_token(
    request: HttpRequest, token: str, *, is_dpop: bool, now: datetime
) -> OAuthClient:
    """Return the client of an access token that a declared client has got for itself, with the
    declared scope.

    is_dpop: the scheme of the request, which must have a proof then.
    Raises: SCIMTokenRefused, with the rule; TransportError, MetadataError, IntrospectionFailed,
    DatabaseError.
    """
    declared = {name: scim.access_tokens for name, scim in conf.scim().items()}
    servers = [
        ResourceServer(tokens, conf.providers()[name])
        for name, tokens in declared.items()
        if tokens
    ]
    if not servers:
        raise SCIMTokenRefused("scim_token_unknown")
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
        tokens = declared[provider]
        if tokens is None or tokens.scope not in access_token.scopes:
            raise AccessTokenInvalid("scope_missing")
        if proof:
            # Last: only the request that is accepted uses the proof up.
            accept_proof(proof, requires_nonce=False, now=now)
    except AccessTokenInvalid as refusal:
        raise SCIMTokenRefused(
            "scim_access_token_invalid", provider=provider, rule=refusal.rule
        ) from None
    return OAuthClient(name=access_token.client_id, provider=provider)
