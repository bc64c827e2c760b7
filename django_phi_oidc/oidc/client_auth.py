"""How this client proves itself to the OP: with its secret. Spec: RFC 6749 2.3.1, OIDC Core 9."""

import base64
from collections.abc import Mapping
from urllib.parse import quote_plus, urlencode

from ..declarations import ProviderDeclaration
from .transport import Request


def authenticate_client(
    *, declaration: ProviderDeclaration, parameters: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return (headers, parameters) of a request's form with the client's authentication in one of them, never both.

    Spec: RFC 6749 2.3.1: for Basic, id and secret are form-encoded each before they are joined.
    """
    if declaration.token_endpoint_auth_method == "client_secret_post":
        credentials = {"client_id": declaration.client_id, "client_secret": declaration.client_secret}
        return {}, {**parameters, **credentials}
    joined = f"{quote_plus(declaration.client_id)}:{quote_plus(declaration.client_secret)}"
    return {"Authorization": f"Basic {base64.b64encode(joined.encode('ascii')).decode('ascii')}"}, dict(parameters)


def build_client_request(*, url: str, declaration: ProviderDeclaration, parameters: Mapping[str, str]) -> Request:
    """Return a POST of parameters as a form by the authenticated client. Nothing of them stands in the URL.

    Spec: RFC 6749 2.3.1, 4.1.3, appendix B.
    """
    headers, authenticated = authenticate_client(declaration=declaration, parameters=parameters)
    return Request(
        method="POST",
        url=url,
        headers={
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            **headers,
        },
        body=urlencode(authenticated).encode("ascii"),
    )
