"""An access token for the portal itself. Spec: RFC 6749 4.4."""

from typing import Unpack

from ...config.providers import ProviderDeclaration
from ...http.transport import TransportRequest, TransportResponse
from ...oidc.client_auth import ClientContext, build_client_request
from ...oidc.token import TokenResponse, process_grant_response


def build_client_credentials_request(
    *, scope: str, **client: Unpack[ClientContext]
) -> TransportRequest:
    """Return the request of the authenticated client. Spec: RFC 6749 4.4.2."""
    parameters = {"grant_type": "client_credentials", "scope": scope}
    url = client["metadata"].token_endpoint
    return build_client_request(
        operation="client_credentials", url=url, parameters=parameters, **client
    )


def process_client_credentials_response(
    response: TransportResponse, *, declaration: ProviderDeclaration
) -> TokenResponse:
    """Return the Bearer token. Raises: TokenResponseError. Spec: RFC 6749 4.4.3, 5."""
    return process_grant_response(
        response, declaration=declaration, id_token_getter=lambda members: ""
    )
