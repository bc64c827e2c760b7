"""Where the OP says that somebody signed out: to this server, or by the person's browser in a frame.

Spec: OIDC Back-Channel Logout 1.0, Front-Channel Logout 1.0, R9.

Somebody signed out at the OP: their sessions end here. Spec: OIDC Back-Channel and Front-Channel Logout 1.0.
"""

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.generic import View

from .. import conf
from .._internal import clock
from ..access.responses import set_private_headers
from ..audit.events import Action, Origin
from ..audit.recorder import record
from ..audit.request_context import get_client_ip, get_request_id
from ..audit.throttling import allow_event
from ..config.providers import ProviderDeclaration
from ..crypto import keyring
from ..crypto.keyring import SymmetricKey
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
from ..oidc.logout_token import LogoutToken, get_logout_token_declaration, verify_logout_token
from ..provider.registry import Provider, get_provider
from ..replay.cache import mark_used_in_transaction
from ..subjects.linking import list_subject_ids
from .lifecycle import EndedSession, end_sessions
from .models import EndReason, OIDCSession, sha256_hex
from .tasks import retry_on_lost_connection
from .views import public_view

BATCH_SIZE = 1000
"""Sessions ended by the same statements."""


@sensitive_variables()
def process_logout_token(
    token: LogoutToken,
    *,
    subject_keys: Sequence[SymmetricKey],
    origin: Origin,
    now: datetime,
    keep_offline_providers: Collection[str] = (),
) -> list[EndedSession]:
    """End the sessions that a verified logout token is about, all of them or none; return what is left of them.

    Its jti is spent in the same transaction: a delivery that failed can be repeated, one that did not can't. Of two at
    once, the second waits for the first. keys: all subject keys, by one of which a `sub` is known. keep_offline_of: as
    end_sessions takes it.

    Requires: no open transaction (RuntimeError): what is answered to the OP is committed.
    Raises: LogoutTokenReplayed, SubjectKeyMissing. Spec: Back-Channel Logout 2.6, 2.7.
    """
    with transaction.atomic(durable=True):
        # An issuer holds no NUL, so no two pairs run together.
        if not mark_used_in_transaction("logout_token", f"{token.iss}\0{token.jti}", expires_at=token.valid_until):
            raise LogoutTokenReplayed
        about = Q(issuer=token.iss)
        if token.sid:
            about &= Q(sid_digest=sha256_hex(token.sid))
        if token.sub:
            about &= Q(subject__in=list_subject_ids(issuer=token.iss, sub=token.sub, keys=subject_keys))
        return _end_matching_sessions(
            about, EndReason.BACKCHANNEL_LOGOUT, origin=origin, now=now, keep_offline_providers=keep_offline_providers
        )


@sensitive_variables()
def end_sessions_of_sid(sid: str, *, issuer: str, origin: Origin, now: datetime) -> list[EndedSession]:
    """End the sessions of that `sid` of that issuer; return what is left of them.

    Where there are none, nothing is written: anybody can ask. Spec: Front-Channel Logout 2.
    """
    about = Q(issuer=issuer, sid_digest=sha256_hex(sid))
    return _end_matching_sessions(
        about, EndReason.FRONTCHANNEL_LOGOUT, origin=origin, now=now, keep_offline_providers=()
    )


def _end_matching_sessions(
    condition: Q, reason: EndReason, *, origin: Origin, now: datetime, keep_offline_providers: Collection[str]
) -> list[EndedSession]:
    live = OIDCSession.objects.filter(condition, ended_at=None).order_by("pk")
    ids = list(live.values_list("pk", flat=True))
    return [
        ended
        for start in range(0, len(ids), BATCH_SIZE)
        for ended in end_sessions(
            ids[start : start + BATCH_SIZE],
            reason,
            origin=origin,
            now=now,
            keep_offline_providers=keep_offline_providers,
        )
    ]


logger = logging.getLogger("django_phi_oidc.logout")
MAX_BODY_BYTES = 72 * 1024
"""Bytes: those of the longest token, and room for parameters that mean nothing to us."""
MAX_PARAMETERS = 100
FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
PROVIDER_CALL_SECONDS = 2.0
"""For each call to the OP, which waits for our answer meanwhile."""
RETRY_AFTER_SECONDS = 30
"""Seconds: as long as the keys are not fetched again."""
SERVER_ERRORS: tuple[type[Exception], ...] = (SubjectKeyMissing, KeyRingError, DatabaseError, InterfaceError)
"""What is this server's fault, or its database's."""
RETRIABLE_ERRORS: tuple[type[Exception], ...] = (TransportError, MetadataError, *SERVER_ERRORS)
_NETLOC_PATTERN = re.compile(r"[A-Za-z0-9.:\[\]-]+")


class ProviderLogoutView(View):
    """A request that is not the person's own doing: what its cookies say is nobody's business, and none is set."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        _ignore_browser_session(request)
        response = super().dispatch(request, *args, **kwargs)
        return set_private_headers(response) if isinstance(response, HttpResponse) else response


@method_decorator([public_view, csrf_exempt, sensitive_post_parameters(), sensitive_variables()], name="dispatch")
class BackchannelLogoutView(ProviderLogoutView):
    """Takes a logout token from the OP; the sessions that it is about are gone before the answer is sent.

    200: done, or nothing to do. 400: refused, and not to be sent again. 503: it could not be judged, or not be obeyed,
    and is unspent: the OP's keys are out of reach, or our database is. BCL 2.5 lets an OP send a token again after what
    it takes for an outage, and after nothing else.
    """

    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        provider = ""
        try:
            token = _get_logout_token(request)
            declaration = get_logout_token_declaration(token, conf.providers().values())
            provider = declaration.name
            _end_sessions(
                _verify_with_provider_keys(token, get_provider(provider)),
                declaration,
                origin=_origin_from_request(request),
            )
        except (LogoutTokenInvalid, LogoutTokenReplayed) as refusal:
            _report_refusal(request, refusal, provider=provider)
            return JsonResponse({"error": "invalid_request", "error_description": str(refusal)}, status=400)
        except RETRIABLE_ERRORS as fault:
            _log_fault(fault, provider=provider)
            response = JsonResponse({"error": "temporarily_unavailable"}, status=503)
            response["Retry-After"] = str(RETRY_AFTER_SECONDS)
            return response
        return HttpResponse()


@method_decorator([public_view, sensitive_variables()], name="dispatch")
class FrontchannelLogoutView(ProviderLogoutView):
    """Ends the OP's session of that `sid` here, in a frame of the OP's page; says nothing, known or not."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest) -> HttpResponse:
        # What a request says of its own encoding is not asked: some of Python's codecs are no text.
        request.encoding = "utf-8"
        issuer, sid = request.GET.get("iss", ""), request.GET.get("sid", "")
        declared = [declaration for declaration in conf.providers().values() if declaration.issuer == issuer]
        response = HttpResponse(content_type="text/plain")
        if declared and sid:
            origin, now = _origin_from_request(request), clock.now()
            try:
                retry_on_lost_connection(lambda: end_sessions_of_sid(sid, issuer=issuer, origin=origin, now=now))
            except SERVER_ERRORS as fault:
                _log_fault(fault, provider=declared[0].name)
                response.status_code = 503
        ancestors = sorted({origin for declaration in declared for origin in _iter_frame_ancestors(declaration)})
        response["Content-Security-Policy"] = " ".join(["frame-ancestors", *(ancestors or ["'none'"])])
        # Of the two, browsers that know frame-ancestors heed it alone; X-Frame-Options can't name the OP.
        response.xframe_options_exempt = bool(ancestors)
        return response


def _get_logout_token(request: HttpRequest) -> str:
    """Return the one logout token of the form. Raises: LogoutTokenInvalid. Spec: Back-Channel Logout 2.5."""
    tokens: list[str] = []
    # Suppressed, and not the cause of the refusal: it would hold the body.
    with suppress(OSError, ValueError):
        # Django bounds what it parses by the length that the client states.
        body = request.read(MAX_BODY_BYTES + 1)
        if request.content_type == FORM_CONTENT_TYPE and len(body) <= MAX_BODY_BYTES:
            form = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
            tokens = form.get("logout_token", [])
    if len(tokens) != 1:
        raise LogoutTokenInvalid("request_malformed")
    return tokens[0]


def _verify_with_provider_keys(token: str, provider: Provider) -> LogoutToken:
    """Return what the token says. Raises: LogoutTokenInvalid; TransportError, MetadataError: it can't be judged now."""
    try:
        keys = provider.get_key_set(deadline=PROVIDER_CALL_SECONDS)
        return verify_logout_token(token, keys=keys, declaration=provider.declaration, now=clock.now())
    except KeyNotFound as error:
        if not error.is_certain:
            raise
        raise LogoutTokenInvalid(error.code) from error


def _end_sessions(logout_token: LogoutToken, declaration: ProviderDeclaration, *, origin: Origin) -> None:
    """End what the token is about. Raises: LogoutTokenReplayed; one of OURS, and then the token is unspent."""
    keys, now = keyring.get_keys("subject"), clock.now()
    keep = _list_offline_access_providers() if conf.should_keep_offline_tokens() else ()
    retry_on_lost_connection(
        lambda: process_logout_token(
            logout_token, subject_keys=keys, origin=origin, now=now, keep_offline_providers=keep
        )
    )


def _list_offline_access_providers() -> list[str]:
    """Return the names of those whose refresh tokens were issued for when the person is away. Spec: BCL 2.7."""
    return [
        declaration.name
        for declaration in conf.providers().values()
        if any(scope.name == "offline_access" for scope in declaration.resource_scopes)
    ]


def _iter_frame_ancestors(declaration: ProviderDeclaration) -> Iterable[str]:
    """Yield the origins of the OP's pages: that of its issuer, and those of the endpoints to which people come."""
    urls = [declaration.issuer]
    try:
        metadata = get_provider(declaration.name).get_metadata(deadline=PROVIDER_CALL_SECONDS)
        urls += [metadata.authorization_endpoint, metadata.end_session_endpoint]
    except (TransportError, MetadataError) as fault:
        logger.warning("The provider %s may frame from its issuer's origin alone: %s.", declaration.name, fault.code)
    for url in filter(None, urls):
        parts = urlsplit(url)
        if _NETLOC_PATTERN.fullmatch(parts.netloc):
            yield f"{parts.scheme}://{parts.netloc}"


def _origin_from_request(request: HttpRequest) -> Origin:
    """Return where the request comes from; nobody is its actor."""
    return Origin(
        client_ip=get_client_ip(request, trusted_proxies=conf.trusted_proxies()), request_id=get_request_id(request)
    )


def _ignore_browser_session(request: HttpRequest) -> None:
    """Let the session of this browser be as it was: it is not read here, noted as active, renewed or deleted."""
    request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)
    request.session = type(request.session)()
    visit = getattr(request, "phi_oidc_timing", None)
    if visit is not None:
        # Or RevocationMiddleware would take it for a session that this request has lost.
        visit.is_ended = True


def _report_refusal(request: HttpRequest, refusal: LogoutTokenInvalid | LogoutTokenReplayed, *, provider: str) -> None:
    """Tell the trail and the log. provider: a declared name, on the word of a token that nobody may have signed."""
    origin, now = _origin_from_request(request), clock.now()
    logger.warning(
        "A logout token was refused: reason=%s rule=%s provider=%s request=%s",
        refusal.code,
        getattr(refusal, "rule", ""),
        provider,
        origin.request_id,
    )
    if not allow_event(refusal.code, origin.client_ip, now=now):
        return
    try:
        record(Action.LOGOUT_REFUSED, origin=origin, now=now, outcome="failure", provider=provider, reason=refusal.code)
    except AuditUnavailable:
        logger.exception("The refusal of a logout token can't be written to the trail.")


def _log_fault(fault: Exception, *, provider: str) -> None:
    """Tell the log, by a name: what a database says of a fault can hold values."""
    name = fault.code if isinstance(fault, PhiOidcError) else type(fault).__name__
    logger.error("A logout by the provider was not done: fault=%s provider=%s", name, provider)
