"""Process a SCIM request: authenticate the client, read the body, and write the response. Spec: RFC
7644 2, 3.1, 3.8.
"""

import json
import logging
import re
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock, request_secrets
from ...access.responses import format_bearer_challenge
from ...audit.actions import Action
from ...audit.refusals import RefusalLog, report_refusal
from ...errors import PhiOidcError
from ...oidc.dpop import DPOP_TOKEN_TYPE
from ...oidc.jose import parse_json_object
from ...sessions.backchannel_logout import get_request_origin
from . import scim_responses
from .bulk import perform_bulk
from .client_access import OAuthClient, authenticate_access_token
from .clients import TOKEN_PREFIX, SCIMTokenRefused, authenticate_client
from .models import SCIMClient
from .schemas import MAX_BODY_BYTES
from .scim_responses import SCIMResponse, build_error, list_unknown_ids
from .scim_users import ClientRequest, has_foreign_id
from .service import DISCOVERY, Operation, ServiceProvider

logger = logging.getLogger("django_phi_oidc.scim")
CONTENT_TYPE = "application/scim+json"
_ACCEPTED_CONTENT_TYPES = (CONTENT_TYPE, "application/json")
_CREDENTIALS = re.compile(r"(bearer|dpop) +([A-Za-z0-9._~+/-]{1,8192}=*)", re.IGNORECASE)
Client = SCIMClient | OAuthClient
_METHODS_WITH_BODY = ("POST", "PUT", "PATCH")
_MESSAGE = (
    "A SCIM request was refused: reason=%(reason)s "
    "client=%(client)s provider=%(provider)s request=%(request)s"
)


class _BodyRefused(Exception):
    """The body can't be read. reason: for the audit log."""

    def __init__(self, reason: str, response: SCIMResponse) -> None:
        super().__init__(reason)
        self.reason = reason
        self.response = response


@sensitive_variables()
def process_request(request: HttpRequest, path: str) -> HttpResponse:
    """Return the response to a request of a client. path: below the base URL.

    401: no valid token. 403: by http, unless DEBUG is on. 404: unknown, deleted, or of another
    provider. 503: nothing has changed, and the client may repeat the request: the database or a key
    is unavailable.
    """
    return _write(scim_responses.run(partial(_process, request, path), report_fault=_log_fault))


def refuse_method() -> HttpResponse:
    """Return the response to a method that no resource has."""
    return _write(build_error(405, "The resource does not have this method."))


@sensitive_variables()
def _process(request: HttpRequest, path: str) -> SCIMResponse:
    """Raises: REFUSALS, UNAVAILABLE_ERRORS."""
    if not (request.is_secure() or settings.DEBUG):
        _report(request, "scim_insecure")
        return build_error(403, "Requests must come by https.")
    try:
        client = _authenticate(request)
    except SCIMTokenRefused as refusal:
        if refusal.rule:
            detail = {"rule": refusal.rule}
        else:
            detail = {}

        _report(request, refusal.reason, refusal.client, provider=refusal.provider, detail=detail)
        return build_error(401, "The request has no valid token.")
    origin = get_request_origin(request)._replace(actor=client.actor)
    provider = conf.providers()[client.provider]
    client_request = ClientRequest(provider=provider, origin=origin, now=clock.now())
    base_url = request.build_absolute_uri(reverse("oidc_scim")).rstrip("/")
    segments = path.strip("/").split("/")
    # Discovery documents have no method with a body.
    has_body = request.method in _METHODS_WITH_BODY and segments[0] not in DISCOVERY
    try:
        if has_body:
            data = _read_body(request)
        else:
            data = {}
    except _BodyRefused as refusal:
        _report(request, refusal.reason, client)
        return refusal.response
    if segments == ["Bulk"] and request.method == "POST":
        report = partial(_report_foreign_ids, request, client)
        return perform_bulk(
            data, client_request, base_url, report_fault=_log_fault, report_unknown_ids=report
        )
    operation = Operation(
        method=str(request.method),
        path=segments,
        parameters=_read_parameters(request),
        data=data,
        if_match=request.headers.get("If-Match", ""),
        if_none_match=request.headers.get("If-None-Match", ""),
    )
    perform = partial(ServiceProvider(client_request, base_url).perform, operation)
    response = scim_responses.run(perform, report_fault=_log_fault)
    _report_foreign_ids(request, client, list_unknown_ids(response, segments))
    return response


@sensitive_variables()
def _authenticate(request: HttpRequest) -> Client:
    """Return the client. Raises: SCIMTokenRefused; UNAVAILABLE_ERRORS."""
    header = request.META.get("HTTP_AUTHORIZATION", "")
    if not header:
        raise SCIMTokenRefused("scim_token_missing")
    match = _CREDENTIALS.fullmatch(header.strip())
    if match is None:
        raise SCIMTokenRefused("scim_token_malformed")
    is_dpop = match[1].lower() == DPOP_TOKEN_TYPE
    token = match[2]
    request_secrets.register_secret(token, "scim_token")
    if token.startswith(TOKEN_PREFIX) and not is_dpop:
        return authenticate_client(token, now=clock.now())
    return authenticate_access_token(request, token, is_dpop=is_dpop, now=clock.now())


def _read_body(request: HttpRequest) -> Mapping[str, Any]:
    """Return the JSON object. Raises: _BodyRefused: too large, another type, or not exactly one
    strict object.
    """
    if request.content_type not in _ACCEPTED_CONTENT_TYPES:
        raise _BodyRefused(
            "scim_body_malformed", build_error(415, f"The body must be {CONTENT_TYPE}.")
        )
    try:
        body = request.read(MAX_BODY_BYTES + 1)
    except OSError:
        raise _BodyRefused(
            "scim_body_malformed", build_error(400, "The body ended early.", "invalidSyntax")
        ) from None
    if len(body) > MAX_BODY_BYTES:
        message = f"A body has at most {MAX_BODY_BYTES} bytes."
        raise _BodyRefused("scim_body_too_large", build_error(413, message))
    try:
        data = parse_json_object(body)
    except ValueError:
        data = None
    if data is None or _has_repeated_name(data):
        message = (
            "The body must be one JSON object, without duplicate "
            "names in any case, and not deeply nested."
        )
        raise _BodyRefused("scim_body_malformed", build_error(400, message, "invalidSyntax"))
    return data


def _has_repeated_name(value: Any) -> bool:
    """Return whether names of an object differ only in case: they are one name. Spec: RFC 7643
    2.1.
    """
    if isinstance(value, Mapping):
        lowered = {name.lower() for name in value}
        if len(lowered) < len(value):
            return True
        return any(map(_has_repeated_name, value.values()))
    if isinstance(value, list):
        return any(map(_has_repeated_name, value))
    return False


def _read_parameters(request: HttpRequest) -> dict[str, str]:
    """Return the parameters of the query; of a repeated one, the last."""
    return {name: str(value) for name, value in request.GET.items()}


def _report_foreign_ids(request: HttpRequest, client: Client, ids: Collection[UUID]) -> None:
    if has_foreign_id(ids, client.provider):
        _report(request, "scim_foreign_resource", client)


def _report(
    request: HttpRequest,
    reason: str,
    client: Client | None = None,
    *,
    provider: str = "",
    detail: Mapping[str, str] | None = None,
) -> None:
    origin = get_request_origin(request)
    if client:
        provider = client.provider
        origin = origin._replace(actor=client.actor)
    fields = {
        "reason": reason,
        "client": client.name if client else "",
        "provider": provider,
        "request": origin.request_id,
    }
    report_refusal(
        Action.SCIM_REFUSED,
        reason,
        log=RefusalLog(logger, _MESSAGE, fields),
        origin=origin,
        now=clock.now(),
        provider=provider,
        detail=detail or {},
    )


def _log_fault(fault: Exception) -> None:
    """Log the code or class of a fault only: the message of a database error may contain values."""
    name: str
    if isinstance(fault, PhiOidcError):
        name = fault.code
    else:
        name = type(fault).__name__
    logger.error("A SCIM request failed: fault=%s", name)


def _write(response: SCIMResponse) -> HttpResponse:
    if response.body is None:
        body = b""
    else:
        body = json.dumps(response.body, separators=(",", ":")).encode()

    http_response = HttpResponse(body, status=response.status, content_type=CONTENT_TYPE)
    if response.location:
        http_response["Location"] = response.location
    if response.version:
        http_response["ETag"] = response.version
    if response.status == 401:
        http_response["WWW-Authenticate"] = format_bearer_challenge(realm="scim")
    if response.status == 503:
        http_response["Retry-After"] = str(scim_responses.RETRY_AFTER_SECONDS)
    return http_response
