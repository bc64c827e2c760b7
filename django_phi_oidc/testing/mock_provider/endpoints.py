"""Which path is which endpoint. Every answer passes the hook here, and no other way out exists."""

from collections.abc import Callable
from typing import NamedTuple

from . import authorize, discovery, end_session, introspection, par, revocation, token, userinfo
from .messages import ReceivedRequest, Reply, create_exchange, create_logged_request
from .state import ProviderState


class Endpoint(NamedTuple):
    """An endpoint by the name that the hook gets."""

    name: str
    handle: Callable[[ProviderState, ReceivedRequest], Reply]
    methods: tuple[str, ...]


ENDPOINTS = {
    "/.well-known/openid-configuration": Endpoint("discovery", discovery.handle_discovery, ("GET",)),
    "/jwks": Endpoint("jwks", discovery.respond_with_keys, ("GET",)),
    "/par": Endpoint("par", par.handle_par, ("POST",)),
    "/authorize": Endpoint("authorize", authorize.handle_authorization, ("GET", "POST")),
    "/token": Endpoint("token", token.handle_token, ("POST",)),
    "/userinfo": Endpoint("userinfo", userinfo.handle_userinfo, ("GET", "POST")),
    "/revoke": Endpoint("revocation", revocation.handle_revocation, ("POST",)),
    "/introspect": Endpoint("introspection", introspection.handle_introspection, ("POST",)),
    "/end-session": Endpoint("end_session", end_session.handle_end_session, ("GET", "POST")),
}


def handle_request(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the answer to a request as the hook leaves it; the request is logged before anything is done."""
    with state.lock:
        state.requests.append(create_logged_request(request))
    endpoint = ENDPOINTS.get(request.path)
    if endpoint is None:
        return state.apply_hook("unknown", request, Reply(status=404))
    if request.method not in endpoint.methods:
        reply = Reply(status=405, headers={"Allow": ", ".join(endpoint.methods)})
        return state.apply_hook(endpoint.name, request, reply)
    if state.intercept is not None:
        instead = state.intercept(endpoint.name, create_exchange(request))
        if instead is not None:
            return instead
    return state.apply_hook(endpoint.name, request, endpoint.handle(state, request))


def handle_malformed_request(state: ProviderState, status: int) -> Reply:
    """Return the answer to what could not be read as a request."""
    request = ReceivedRequest(method="", path="")
    return state.apply_hook("malformed", request, Reply(status=status))
