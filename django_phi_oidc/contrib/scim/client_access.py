"""Access tokens of a provider in place of the token of a SCIM client. Spec: RFC 7644 2; RFC 6749
4.4; RFC 9068.
"""

from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from ..common.api_errors import ClientTokenInvalid
from ..common.client_authentication import client_authenticators
from . import conf as scim_conf
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
    accepted = {}
    for name, scim in scim_conf.scim().items():
        if scim.access_tokens is not None:
            accepted[name] = scim.access_tokens
    authenticate = next(iter(client_authenticators), None)
    # Without an authenticator, check E151 reports the declaration.
    if not accepted or authenticate is None:
        raise SCIMTokenRefused("scim_token_unknown")
    try:
        client = authenticate(request, token, accepted=accepted, is_dpop=is_dpop, now=now)
    except ClientTokenInvalid as refusal:
        raise SCIMTokenRefused(
            "scim_access_token_invalid", provider=refusal.provider, rule=refusal.rule
        ) from None
    return OAuthClient(name=client.client_id, provider=client.provider)
