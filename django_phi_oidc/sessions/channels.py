"""Where the OP says that somebody signed out: to this server, or by the person's browser in a frame.

Spec: OIDC Back-Channel Logout 1.0, Front-Channel Logout 1.0, R9.
"""

import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.generic import View

from .. import clock, conf, keyring
from ..access.answering import private
from ..audit.events import Action, Origin
from ..audit.recording import record
from ..audit.request import client_ip, request_id
from ..audit.throttling import admits
from ..declarations import ProviderDeclaration
from ..errors import (
    AuditUnavailable,
    KeyNotFound,
    KeyRingError,
    LogoutTokenInvalid,
    LogoutTokenReplayed,
    MetadataError,
    PhiOidcError,
    SubjectKeyMissing,
    TransportError,
)
from ..oidc.logout_token import LogoutToken, addressee, verify_logout_token
from ..provider.registry import Provider, get_provider
from .hearing import hear_logout_token, hear_sid
from .tasks import on_live_connection
from .views import door

logger = logging.getLogger("django_phi_oidc.logout")
LONGEST_BODY = 72 * 1024
"""Bytes: those of the longest token, and room for parameters that mean nothing to us."""
MOST_PARAMETERS = 100
FORM = "application/x-www-form-urlencoded"
OP_SECONDS = 2.0
"""For each call to the OP, which waits for our answer meanwhile."""
RETRY_AFTER = 30
"""Seconds: as long as the keys are not fetched again."""
OURS: tuple[type[Exception], ...] = (SubjectKeyMissing, KeyRingError, DatabaseError, InterfaceError)
"""What is this server's fault, or its database's."""
RETRIABLE: tuple[type[Exception], ...] = (TransportError, MetadataError, *OURS)
_NETLOC = re.compile(r"[A-Za-z0-9.:\[\]-]+")


class ChannelView(View):
    """A request that is not the person's own doing: what its cookies say is nobody's business, and none is set."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        _leave_cookies_alone(request)
        response = super().dispatch(request, *args, **kwargs)
        return private(response) if isinstance(response, HttpResponse) else response


@method_decorator([door, csrf_exempt, sensitive_post_parameters(), sensitive_variables()], name="dispatch")
class BackchannelLogoutView(ChannelView):
    """Takes a logout token from the OP; the sessions that it is about are gone before the answer is sent.

    200: done, or nothing to do. 400: refused, and not to be sent again. 503: it could not be judged, or not be obeyed,
    and is unspent: the OP's keys are out of reach, or our database is. BCL 2.5 lets an OP send a token again after what
    it takes for an outage, and after nothing else.
    """

    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        provider = ""
        try:
            token = _token_of(request)
            declaration = addressee(token, conf.providers().values())
            provider = declaration.name
            _obey(_verified(token, get_provider(provider)), declaration, origin=_origin_of(request))
        except (LogoutTokenInvalid, LogoutTokenReplayed) as refusal:
            _tell_refusal(request, refusal, provider=provider)
            return JsonResponse({"error": "invalid_request", "error_description": str(refusal)}, status=400)
        except RETRIABLE as fault:
            _tell_fault(fault, provider=provider)
            response = JsonResponse({"error": "temporarily_unavailable"}, status=503)
            response["Retry-After"] = str(RETRY_AFTER)
            return response
        return HttpResponse()


@method_decorator([door, sensitive_variables()], name="dispatch")
class FrontchannelLogoutView(ChannelView):
    """Ends the OP's session of that `sid` here, in a frame of the OP's page; says nothing, known or not."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest) -> HttpResponse:
        # What a request says of its own encoding is not asked: some of Python's codecs are no text.
        request.encoding = "utf-8"
        issuer, sid = request.GET.get("iss", ""), request.GET.get("sid", "")
        declared = [declaration for declaration in conf.providers().values() if declaration.issuer == issuer]
        response = HttpResponse(content_type="text/plain")
        if declared and sid:
            origin, now = _origin_of(request), clock.now()
            try:
                on_live_connection(lambda: hear_sid(sid, issuer=issuer, origin=origin, now=now))
            except OURS as fault:
                _tell_fault(fault, provider=declared[0].name)
                response.status_code = 503
        ancestors = sorted({origin for declaration in declared for origin in _origins_of(declaration)})
        response["Content-Security-Policy"] = " ".join(["frame-ancestors", *(ancestors or ["'none'"])])
        # Of the two, browsers that know frame-ancestors heed it alone; X-Frame-Options can't name the OP.
        response.xframe_options_exempt = bool(ancestors)
        return response


def _token_of(request: HttpRequest) -> str:
    """Return the one logout token of the form. Raises: LogoutTokenInvalid. Spec: Back-Channel Logout 2.5."""
    tokens: list[str] = []
    # Suppressed, and not the cause of the refusal: it would hold the body.
    with suppress(OSError, ValueError):
        # Django bounds what it parses by the length that the client states.
        body = request.read(LONGEST_BODY + 1)
        if request.content_type == FORM and len(body) <= LONGEST_BODY:
            form = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
            tokens = form.get("logout_token", [])
    if len(tokens) != 1:
        raise LogoutTokenInvalid("request_malformed")
    return tokens[0]


def _verified(token: str, provider: Provider) -> LogoutToken:
    """Return what the token says. Raises: LogoutTokenInvalid; TransportError, MetadataError: it can't be judged now."""
    try:
        keys = provider.keys(deadline=OP_SECONDS)
        return verify_logout_token(token, keys=keys, declaration=provider.declaration, now=clock.now())
    except KeyNotFound as error:
        if not error.is_certain:
            raise
        raise LogoutTokenInvalid(error.code) from error


def _obey(token: LogoutToken, declaration: ProviderDeclaration, *, origin: Origin) -> None:
    """End what the token is about. Raises: LogoutTokenReplayed; one of OURS, and then the token is unspent."""
    keys, now = keyring.keys("SUBJECT_KEYS"), clock.now()
    keep = _providers_with_offline_access() if conf.keep_offline() else ()
    on_live_connection(lambda: hear_logout_token(token, keys=keys, origin=origin, now=now, keep_offline_of=keep))


def _providers_with_offline_access() -> list[str]:
    """Return the names of those whose refresh tokens were issued for when the person is away. Spec: BCL 2.7."""
    return [
        declaration.name
        for declaration in conf.providers().values()
        if any(scope.name == "offline_access" for scope in declaration.resource_scopes)
    ]


def _origins_of(declaration: ProviderDeclaration) -> Iterable[str]:
    """Yield the origins of the OP's pages: that of its issuer, and those of the endpoints to which people come."""
    urls = [declaration.issuer]
    try:
        metadata = get_provider(declaration.name).metadata(deadline=OP_SECONDS)
        urls += [metadata.authorization_endpoint, metadata.end_session_endpoint]
    except (TransportError, MetadataError) as fault:
        logger.warning("The provider %s may frame from its issuer's origin alone: %s.", declaration.name, fault.code)
    for url in filter(None, urls):
        parts = urlsplit(url)
        if _NETLOC.fullmatch(parts.netloc):
            yield f"{parts.scheme}://{parts.netloc}"


def _origin_of(request: HttpRequest) -> Origin:
    """Return where the request comes from; nobody is its actor."""
    return Origin(client_ip=client_ip(request, trusted=conf.trusted_proxies()), request_id=request_id(request))


def _leave_cookies_alone(request: HttpRequest) -> None:
    """Let the session of this browser be as it was: it is not read here, noted as active, renewed or deleted."""
    request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)
    request.session = type(request.session)()
    visit = getattr(request, "phi_oidc_timing", None)
    if visit is not None:
        # Or RevocationMiddleware would take it for a session that this request has lost.
        visit.is_over = True


def _tell_refusal(request: HttpRequest, refusal: LogoutTokenInvalid | LogoutTokenReplayed, *, provider: str) -> None:
    """Tell the trail and the log. provider: a declared name, on the word of a token that nobody may have signed."""
    origin, now = _origin_of(request), clock.now()
    logger.warning(
        "A logout token was refused: reason=%s rule=%s provider=%s request=%s",
        refusal.code,
        getattr(refusal, "rule", ""),
        provider,
        origin.request_id,
    )
    if not admits(refusal.code, origin.client_ip, now=now):
        return
    try:
        record(Action.LOGOUT_REFUSED, origin=origin, now=now, outcome="failure", provider=provider, reason=refusal.code)
    except AuditUnavailable:
        logger.exception("The refusal of a logout token can't be written to the trail.")


def _tell_fault(fault: Exception, *, provider: str) -> None:
    """Tell the log, by a name: what a database says of a fault can hold values."""
    name = fault.code if isinstance(fault, PhiOidcError) else type(fault).__name__
    logger.error("A logout by the provider was not done: fault=%s provider=%s", name, provider)
