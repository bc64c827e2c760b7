"""The registry by which an endpoint of an app authenticates clients by their access tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from django.http import HttpRequest  # noqa: TID251 -- the type of what edges pass on

from ...extensions import Registry
from .accepted_tokens import ClientTokensDeclaration


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatedClient:
    """A client of a provider that has authenticated with an access token of its own."""

    provider: str
    """The declared name."""
    client_id: str


class ClientAuthenticator(Protocol):
    """Authenticates a client that calls an endpoint of another app with an access token."""

    def __call__(
        self,
        request: "HttpRequest",
        token: str,
        *,
        accepted: "Mapping[str, ClientTokensDeclaration]",
        is_dpop: bool,
        now: datetime,
    ) -> AuthenticatedClient:
        """Return the client of a token that a declared client requested for itself, with the
        declared scope.

        accepted: the accepted tokens by the name of the provider; not empty. is_dpop: whether the
        scheme of the request is DPoP, which requires a proof.
        Raises: ClientTokenInvalid; TransportError, MetadataError, IntrospectionFailed,
        DatabaseError, if the token could not be verified.
        """


client_authenticators: Registry[ClientAuthenticator] = Registry(
    "Authenticate clients by access tokens, at endpoints of other apps. The first one is used."
)
