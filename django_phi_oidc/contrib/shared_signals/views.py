"""Push delivery: the transmitter posts a security event. Spec: RFC 8935."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock
from ..._internal.view_decorators import public_view
from ...audit.events import Origin
from ...audit.outbox import batch_delivery
from ...config.providers import ProviderDeclaration
from ...sessions.backchannel_logout import (
    PROVIDER_CALL_SECONDS,
    RETRY_AFTER_SECONDS,
    SessionlessView,
    get_request_origin,
)
from ...sessions.lifecycle import EndedSession
from ...sessions.models import PendingRevocation
from ...sessions.tasks import retry_on_lost_connection, revoke_after_commit
from . import conf as signals_conf
from .declaration import SignalsDeclaration
from .errors import SecurityEventTokenInvalid
from .event_reception import (
    RETRIABLE_ERRORS,
    log_fault,
    process_event,
    report_refused_event,
    verify_event,
)
from .poll_delivery import get_error_code
from .security_event_token import address_security_event_token

SET_CONTENT_TYPE = "application/secevent+jwt"
MAX_BODY_BYTES = 64 * 1024


@method_decorator([public_view, csrf_exempt, sensitive_variables()], name="dispatch")
class EventPushView(SessionlessView):
    """Accept a security event from a transmitter, and apply its effects before responding.

    202: the event is recorded and its effects are committed, now or by an earlier delivery. 400: it
    is refused for good. 503: it could not be verified, recorded or processed, and may be sent
    again. 404: no provider pushes events.
    """

    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        declared = conf.providers()
        providers = []
        for name, declared_signals in signals_conf.signals().items():
            if declared_signals.delivery == "push":
                providers.append(declared[name])
        if not providers:
            return HttpResponse(status=404)
        provider_name = ""
        origin = get_request_origin(request)
        try:
            token = _get_token(request)
            declaration = address_security_event_token(token, providers)
            provider_name = declaration.name
            signals = declaration.find_option(SignalsDeclaration)
            if signals is not None:
                _authenticate(request, signals)
                _process(token, declaration, signals, origin=origin)
        except SecurityEventTokenInvalid as refusal:
            report_refused_event(refusal, provider=provider_name, origin=origin, now=clock.now())
            body = {"err": get_error_code(refusal.rule), "description": str(refusal)}
            return JsonResponse(body, status=400, headers={"Content-Language": "en"})
        except RETRIABLE_ERRORS as fault:
            log_fault(fault, provider=provider_name)
            return HttpResponse(status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        return HttpResponse(status=202)


def _get_token(request: HttpRequest) -> str:
    """Return the token, which is the whole body. Raises: SecurityEventTokenInvalid. Spec: RFC 8935
    2.1.
    """
    try:
        body = request.read(MAX_BODY_BYTES + 1)
        if request.content_type == SET_CONTENT_TYPE and len(body) <= MAX_BODY_BYTES:
            return body.decode("ascii").strip()
    except (OSError, ValueError):
        # Not chained: the exception would keep the body.
        pass
    raise SecurityEventTokenInvalid("request_malformed")


def _authenticate(request: HttpRequest, signals: SignalsDeclaration) -> None:
    """`authorization_invalid`: the header is the one of the stream, if one is declared. Spec: SSF
    1.0 6.1.1.
    """
    header = request.headers.get("Authorization", "")
    if signals.push_authorization and not constant_time_compare(header, signals.push_authorization):
        raise SecurityEventTokenInvalid("authorization_invalid")


def _process(
    token: str, declaration: ProviderDeclaration, signals: SignalsDeclaration, *, origin: Origin
) -> None:
    """Process the event, and revoke the tokens of the sessions that it ended. Raises: see the
    view.
    """
    event = verify_event(token, provider=declaration.name, timeout_seconds=PROVIDER_CALL_SECONDS)

    def process() -> list[EndedSession]:
        return process_event(
            event,
            declaration=declaration,
            signals=signals,
            origin=origin,
            now=clock.now(),
            lease_revocations=True,
        )

    with batch_delivery():
        ended = retry_on_lost_connection(process)
        ids: list[UUID] = []
        leased: list[PendingRevocation] = []
        for session in ended:
            ids.extend(session.revocation_ids)
            leased.extend(session.leased_revocations)
        revoke_after_commit(ids, leased=leased)
