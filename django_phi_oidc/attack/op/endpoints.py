"""Which path is which endpoint. Every answer passes the hook here, and no other way out exists."""

from collections.abc import Callable
from typing import NamedTuple

from . import authorize, discovery, end_session, introspection, jwks, par, revocation, token, userinfo
from .messages import Reply, Request, exchange_for, logged
from .state import State


class Endpoint(NamedTuple):
    """An endpoint by the name that the hook gets."""

    name: str
    respond: Callable[[State, Request], Reply]
    methods: tuple[str, ...]


ENDPOINTS = {
    "/.well-known/openid-configuration": Endpoint("discovery", discovery.respond, ("GET",)),
    "/jwks": Endpoint("jwks", jwks.respond, ("GET",)),
    "/par": Endpoint("par", par.respond, ("POST",)),
    "/authorize": Endpoint("authorize", authorize.respond, ("GET", "POST")),
    "/token": Endpoint("token", token.respond, ("POST",)),
    "/userinfo": Endpoint("userinfo", userinfo.respond, ("GET", "POST")),
    "/revoke": Endpoint("revocation", revocation.respond, ("POST",)),
    "/introspect": Endpoint("introspection", introspection.respond, ("POST",)),
    "/end-session": Endpoint("end_session", end_session.respond, ("GET", "POST")),
}


def answer(state: State, request: Request) -> Reply:
    """Return the answer to a request as the hook leaves it; the request is logged before anything is done."""
    with state.lock:
        state.requests.append(logged(request))
    endpoint = ENDPOINTS.get(request.path)
    if endpoint is None:
        return state.hooked("unknown", request, Reply(status=404))
    if request.method not in endpoint.methods:
        reply = Reply(status=405, headers={"Allow": ", ".join(endpoint.methods)})
        return state.hooked(endpoint.name, request, reply)
    if state.intercept is not None:
        instead = state.intercept(endpoint.name, exchange_for(request))
        if instead is not None:
            return instead
    return state.hooked(endpoint.name, request, endpoint.respond(state, request))


def answer_malformed(state: State, status: int) -> Reply:
    """Return the answer to what could not be read as a request."""
    request = Request(method="", path="")
    return state.hooked("malformed", request, Reply(status=status))
