"""The start of a sign-in: what is asked of the OP, and how it gets there. Spec: OIDC Core 3.1.2, RFC 9126."""

from collections.abc import Callable, Mapping
from datetime import datetime

from django.views.decorators.debug import sensitive_variables

from .. import entropy
from ..claims import catalog
from ..declarations import ClaimDeclaration
from ..oidc.authorization import AuthorizationRequest, authorization_parameters, build_authorization_url
from ..oidc.client_auth import Freshness
from ..oidc.pushed_authorization import build_par_request, is_pushed, judge_par_response
from ..provider.registry import Provider


# A push holds the client's proof and all that the browser is not to carry.
@sensitive_variables()
def authorization_url(
    request: AuthorizationRequest,
    *,
    provider: Provider,
    declared: Mapping[str, ClaimDeclaration],
    deadline: float,
    clock: Callable[[], datetime],
) -> str:
    """Return where the browser goes. A request that is pushed has arrived at the OP by then, and is not in the URL.

    deadline: seconds, for each call to the OP. No transaction is open.
    Raises: TransportError, MetadataError, PushedRequestError. Spec: OIDC Core 3.1.2.1; RFC 9126 2, 4.
    """
    declaration = provider.declaration
    metadata = provider.metadata(deadline=deadline)
    asked = catalog.ask(declared, declaration=declaration)
    parameters = authorization_parameters(
        metadata=metadata, declaration=declaration, request=request, scope=asked.scope, claims=asked.claims
    )
    if is_pushed(metadata=metadata, declaration=declaration):
        push = build_par_request(
            metadata=metadata,
            declaration=declaration,
            parameters=parameters,
            freshness=Freshness(now=clock(), jti=entropy.token_b64url(32)),
        )
        parameters = judge_par_response(provider.transport.send(push, deadline=deadline), declaration=declaration)
    return build_authorization_url(metadata=metadata, parameters=parameters)
