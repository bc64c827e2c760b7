"""Back-channel logout: the provider sends a logout token, and the sessions that it names end.

Spec: OIDC Back-Channel Logout 1.0, R9.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs

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
from .._internal.view_decorators import public_view
from ..access.responses import set_private_headers
from ..audit import conf as audit_conf
from ..audit.events import Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..audit.refusals import RefusalLog, report_refusal
from ..audit.request_context import get_client_ip, get_request_id
from ..audit.throttling import add_attempt, list_sender_networks
from ..config.providers import ProviderDeclaration
from ..crypto import keyring
from ..crypto.keyring import SymmetricKey
from ..errors import (
    KeyNotFound,
    KeyRingError,
    LogoutTokenInvalid,
    LogoutTokenReplayed,
    MetadataError,
    PhiOidcError,
    SignInRefused,
    SubjectKeyMissing,
    TransportError,
)
from ..oidc.logout_token import (
    LogoutToken,
    address_logout_token,
    validate_without_signature,
    verify_logout_token,
)
from ..provider.registry import Provider, get_provider
from ..replay.cache import mark_used_in_transaction, was_used
from ..subjects.linking import list_subject_ids
from .digests import sha256_hex
from .lifecycle import EndedSession, end_sessions
from .models import EndReason, OIDCSession
from .recent_logouts import remember_logout
from .tasks import retry_on_lost_connection

BATCH_SIZE = 1000
"""Sessions ended by the same statements."""
MAX_BODY_BYTES = 72 * 1024
"""The longest accepted token, plus room for unknown parameters."""
MAX_PARAMETERS = 100
FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
PROVIDER_CALL_SECONDS = 2.0
"""Limit of each call to the provider, which waits for our response meanwhile."""
RETRY_AFTER_SECONDS = 30
"""The keys are not fetched again earlier."""
MAX_UNVERIFIED_TOKENS = 10
"""Tokens per minute that one sender may repeat because the keys are unavailable. For further ones,
the status is 429.
"""
_THROTTLE_KIND = "logout_token"
PROVIDER_ERRORS: tuple[type[SignInRefused], ...] = (TransportError, MetadataError)
"""The token could not be verified now. It may be from a stranger."""
SERVER_ERRORS: tuple[type[Exception], ...] = (
    SubjectKeyMissing,
    KeyRingError,
    DatabaseError,
    InterfaceError,
)
"""Faults of this server or its database."""
logger = logging.getLogger("django_phi_oidc.logout")
REFUSAL_LOG_MESSAGE = (
    "A logout token was refused: reason=%(reason)s rule=%(rule)s "
    "provider=%(provider)s request=%(request)s"
)


@sensitive_variables()
def process_logout_token(
    token: LogoutToken,
    *,
    provider: str,
    get_subject_keys: Callable[[], Sequence[SymmetricKey]],
    origin: Origin,
    now: datetime,
    keep_offline_providers: Collection[str] = (),
) -> list[EndedSession]:
    """End all sessions that a verified logout token names, or none of them; return the ended
    sessions.

    A sid names a session of the issuer, and sub must be that of its person; a difference raises an
    alert, but the session ends: Keycloak up to 26.1 sends another sub than in the ID Token to
    pairwise clients. Without a sid, all sessions of the person end. Only for these are the subject
    keys needed.

    Its jti is marked as used in the same transaction, so a failed delivery can be repeated and a
    successful one can't. Of two concurrent deliveries, the second waits for the first.
    keep_offline_providers: as in `end_sessions`.
    Requires: no open transaction (RuntimeError), because the response to the provider confirms a
    commit.
    Raises: LogoutTokenReplayed; without a sid SubjectKeyMissing, KeyMissing. Spec: Back-Channel
    Logout 2.4, 2.6, 2.7.
    """
    # An issuer contains no NUL, so two (iss, jti) pairs never give the same identifier.
    identifier = f"{token.iss}\0{token.jti}"
    if was_used("logout_token", identifier):
        raise LogoutTokenReplayed
    # Committed before the sessions are read, see `recent_logouts`.
    if not token.sid:
        keys = get_subject_keys()
    else:
        keys = ()

    remember_logout(
        issuer=token.iss,
        sid=token.sid,
        sub=token.sub,
        keys=keys,
        reason=EndReason.BACKCHANNEL_LOGOUT,
        now=now,
    )
    with transaction.atomic(durable=True):
        if not mark_used_in_transaction("logout_token", identifier, expires_at=token.valid_until):
            raise LogoutTokenReplayed
        condition = Q(issuer=token.iss)
        if token.sid:
            condition &= Q(sid_digest=sha256_hex(token.sid))
        else:
            condition &= Q(subject__in=list_subject_ids(issuer=token.iss, sub=token.sub, keys=keys))
        mismatches = _count_sub_mismatches(token, condition, get_subject_keys=get_subject_keys)
        ended = end_matching_sessions(
            condition,
            EndReason.BACKCHANNEL_LOGOUT,
            origin=origin,
            now=now,
            keep_offline_providers=keep_offline_providers,
        )
        events = [
            NewEvent(
                action=Action.LOGOUT_RECEIVED,
                detail={"sessions": len(ended)},
                origin=origin,
                now=now,
                provider=provider,
            )
        ]
        if mismatches:
            detail = {"rule": "logout_sub_mismatch", "count": mismatches}
            events.append(
                NewEvent(
                    action=Action.ALERT_RAISED,
                    detail=detail,
                    origin=origin,
                    now=now,
                    provider=provider,
                )
            )
        enqueue_many(events)
        return ended


@sensitive_variables()
def _count_sub_mismatches(
    token: LogoutToken, condition: Q, *, get_subject_keys: Callable[[], Sequence[SymmetricKey]]
) -> int:
    """Return how many live sessions of the token's sid have another sub; 0 if that cannot be
    determined now.
    """
    if not token.sid or not token.sub:
        return 0
    try:
        subject_ids = list_subject_ids(issuer=token.iss, sub=token.sub, keys=get_subject_keys())
    except (SubjectKeyMissing, KeyRingError):
        return 0
    return OIDCSession.objects.live().filter(condition).exclude(subject__in=subject_ids).count()


def end_matching_sessions(condition: Q, reason: EndReason, **options: Any) -> list[EndedSession]:
    """End the live sessions that match the condition. options: as in `end_sessions`."""
    live = OIDCSession.objects.filter(condition, ended_at=None).order_by("pk")
    ids = list(live.values_list("pk", flat=True))
    matching_sessions = []
    for start in range(0, len(ids), BATCH_SIZE):
        for ended in end_sessions(ids[start : start + BATCH_SIZE], reason, **options):
            matching_sessions.append(ended)
    return matching_sessions


class SessionlessView(View):
    """Base of the views that other systems call. The Django session of a browser is neither read
    nor changed.
    """

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)
        request.session = type(request.session)()
        activity = getattr(request, "phi_oidc_timing", None)
        if activity is not None:
            # Else RevocationMiddleware would end the session, because this request seems to have
            # lost it.
            activity.is_ended = True
        response = super().dispatch(request, *args, **kwargs)
        if isinstance(response, HttpResponse):
            return set_private_headers(response)
        return response


@method_decorator(
    [public_view, csrf_exempt, sensitive_post_parameters(), sensitive_variables()], name="dispatch"
)
class BackchannelLogoutView(SessionlessView):
    """Accept a logout token from the provider and end its sessions before responding.

    200: the sessions ended, or there were none. 400: the token is refused for good. 503: the token
    could not be verified or processed, and is not marked as used: the provider's keys or our
    database are unavailable. A provider may repeat a token only after what it takes for an outage
    (BCL 2.5). 429: the same, for a sender of many tokens that could not be verified: a stranger
    cannot cause any number of server errors.
    """

    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        provider_name = ""
        origin = get_request_origin(request)
        try:
            token = _get_logout_token(request)
            addressed = address_logout_token(token, conf.providers().values())
            provider_name = addressed.declaration.name
            try:
                logout_token = _verify_with_provider_keys(
                    addressed.signed_token, get_provider(provider_name)
                )
            except PROVIDER_ERRORS as fault:
                if _is_unverified_token_refused(origin):
                    refusal = LogoutTokenInvalid(fault.code)
                    _report_refused_token(refusal, provider=provider_name, origin=origin)
                    return _create_retry_response(429)
                raise
            _end_sessions(logout_token, provider=provider_name, origin=origin)
        except (LogoutTokenInvalid, LogoutTokenReplayed) as refusal:
            _report_refused_token(refusal, provider=provider_name, origin=origin)
            return JsonResponse(
                {"error": "invalid_request", "error_description": str(refusal)}, status=400
            )
        except (*PROVIDER_ERRORS, *SERVER_ERRORS) as fault:
            log_fault(fault, provider_name=provider_name)
            return _create_retry_response(503)
        return HttpResponse()


def _is_unverified_token_refused(origin: Origin) -> bool:
    """Count a token that cannot be verified now, and return whether its sender has sent too many.

    Raises: DatabaseError.
    """
    # A home or company line has many IPv6 networks.
    sender = list_sender_networks(origin.client_ip)[-1]
    return add_attempt(_THROTTLE_KIND, sender, now=clock.now()) > MAX_UNVERIFIED_TOKENS


def _report_refused_token(
    refusal: LogoutTokenInvalid | LogoutTokenReplayed, *, provider: str, origin: Origin
) -> None:
    # The provider is declared, but from an unverified token.
    rule = getattr(refusal, "rule", "")
    fields = {"reason": refusal.code, "rule": rule, "provider": provider}
    log = RefusalLog(logger, REFUSAL_LOG_MESSAGE, {**fields, "request": origin.request_id})
    report_refusal(
        Action.LOGOUT_REFUSED,
        refusal.code,
        log=log,
        origin=origin,
        now=clock.now(),
        provider=provider,
        detail={"rule": rule} if rule else None,
    )


def _create_retry_response(status: int) -> JsonResponse:
    response = JsonResponse({"error": "temporarily_unavailable"}, status=status)
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _get_logout_token(request: HttpRequest) -> str:
    """Return the only logout token of the form. Raises: LogoutTokenInvalid. Spec: Back-Channel
    Logout 2.5.
    """
    tokens: list[str] = []
    # Suppressed instead of chained: the exception would keep the body.
    with suppress(OSError, ValueError):
        # Django limits its own parsing by the length that the client states.
        body = request.read(MAX_BODY_BYTES + 1)
        if request.content_type == FORM_CONTENT_TYPE and len(body) <= MAX_BODY_BYTES:
            form = parse_qs(
                body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS
            )
            tokens = form.get("logout_token", [])
    if len(tokens) != 1:
        raise LogoutTokenInvalid("request_malformed")
    return tokens[0]


def _verify_with_provider_keys(token: str, provider: Provider) -> LogoutToken:
    """Raises: LogoutTokenInvalid; TransportError, MetadataError: the token can't be verified
    now.
    """
    now = clock.now()
    # First, because a missing key would hide that the token cannot be the provider's.
    validate_without_signature(token, declaration=provider.declaration, now=now)
    try:
        keys = provider.get_key_set(timeout_seconds=PROVIDER_CALL_SECONDS)
        return verify_logout_token(token, keys=keys, declaration=provider.declaration, now=now)
    except KeyNotFound as error:
        if not error.is_certain:
            raise
        raise LogoutTokenInvalid(error.code) from error


def _end_sessions(logout_token: LogoutToken, *, provider: str, origin: Origin) -> None:
    """Raises: LogoutTokenReplayed; one of SERVER_ERRORS, and then the token is not marked as
    used.
    """
    providers: Iterable[ProviderDeclaration]
    if conf.should_keep_offline_tokens():
        providers = conf.providers().values()
    else:
        providers = ()

    # Refresh tokens of `offline_access` should outlive the logout. Spec: Back-Channel Logout 2.7.
    offline = []
    for declaration in providers:
        if _requests_offline_access(declaration):
            offline.append(declaration.name)
    get_keys = partial(keyring.get_keys, "subject")
    end = partial(
        process_logout_token,
        logout_token,
        provider=provider,
        get_subject_keys=get_keys,
        origin=origin,
    )
    retry_on_lost_connection(partial(end, now=clock.now(), keep_offline_providers=offline))


def _requests_offline_access(declaration: ProviderDeclaration) -> bool:
    return any(scope.name == "offline_access" for scope in declaration.resource_scopes)


def get_request_origin(request: HttpRequest) -> Origin:
    """Return the origin of a request without an actor."""
    client_ip = get_client_ip(request, trusted_proxies=audit_conf.trusted_proxies())
    return Origin(client_ip=client_ip, request_id=get_request_id(request))


def log_fault(fault: Exception, *, provider_name: str) -> None:
    """Log the code or class of a fault only: the message of a database error may contain values."""
    name: str
    if isinstance(fault, PhiOidcError):
        name = fault.code
    else:
        name = type(fault).__name__
    logger.error("A logout by the provider failed: fault=%s provider=%s", name, provider_name)
