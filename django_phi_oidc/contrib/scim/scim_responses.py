"""Responses of the service provider, and the errors that they are made of. Spec: RFC 7644 3.12."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError
from pydantic import ValidationError
from scim2_models import BaseModel, Context, Error, ResponseParameters, SCIMException

from ...errors import (
    AuditUnavailable,
    KeyRingError,
    MetadataError,
    SubjectAltered,
    SubjectKeyMissing,
    TransportError,
)
from ..common.api_errors import IntrospectionFailed
from .scim_groups import MemberUnknown
from .scim_users import SCIMRefused, parse_id

UNAVAILABLE_ERRORS: tuple[type[Exception], ...] = (
    *(
        DatabaseError,
        InterfaceError,
        KeyRingError,
        SubjectKeyMissing,
        SubjectAltered,
        AuditUnavailable,
    ),
    *(TransportError, MetadataError, IntrospectionFailed),
)
"""Faults of this server, its databases, or the provider that verifies a token.

Nothing has changed, and the client may repeat the request.
"""
REFUSALS: tuple[type[Exception], ...] = (SCIMException, ValidationError, SCIMRefused)
"""Requests that fail again if they are repeated."""
RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SCIMResponse:
    """The response to one operation, alone or in a bulk request."""

    status: int
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    location: str = ""
    version: str = ""
    unknown_ids: Collection[UUID] = ()
    """Of members that do not exist for the client."""


def build_response(
    message: BaseModel,
    *,
    status: int = 200,
    context: Context = Context.RESOURCE_QUERY_RESPONSE,
    parameters: ResponseParameters[Any] | None = None,
    location: str = "",
    version: str = "",
) -> SCIMResponse:
    """Return the response with a message. parameters: which attributes the client has asked for."""
    body = message.model_dump(scim_ctx=context, response_parameters=parameters, mode="json")
    return SCIMResponse(status=status, body=body, location=location, version=version)


def build_error(status: int, detail: str, scim_type: str = "") -> SCIMResponse:
    """Return an error response."""
    error = Error(status=status, scim_type=scim_type or None, detail=detail)
    return SCIMResponse(status=status, body=error.model_dump(mode="json"))


def build_refusal(error: Exception) -> SCIMResponse:
    """Return the error response of one of REFUSALS."""
    if isinstance(error, SCIMRefused):
        response = build_error(error.status, str(error), error.scim_type)
        if isinstance(error, MemberUnknown):
            return replace(response, unknown_ids=error.ids)
        return response
    first = Error()
    if isinstance(error, ValidationError):
        first = Error.from_validation_errors(_list_errors(error))[0]
    elif isinstance(error, SCIMException):
        first = error.to_error()
    return build_error(first.status or 400, first.detail or "", first.scim_type or "")


def list_unknown_ids(response: SCIMResponse, path: Sequence[str]) -> Collection[UUID]:
    """Return the ids that do not exist for the client: of members, or the last segment of the
    path.
    """
    pk = None
    if response.status == 404:
        pk = parse_id(path[-1])
    if pk is None:
        return response.unknown_ids
    return [pk]


def build_unavailable() -> SCIMResponse:
    return build_error(503, "The portal can't process the request now. Repeat it later.")


def run(
    operation: Callable[[], SCIMResponse], *, report_fault: Callable[[Exception], None]
) -> SCIMResponse:
    """Return the response of the operation, or that of its error. report_fault: logs one of
    UNAVAILABLE_ERRORS.
    """
    try:
        return operation()
    except UNAVAILABLE_ERRORS as fault:
        report_fault(fault)
        return build_unavailable()
    except REFUSALS as refusal:
        return build_refusal(refusal)


def _list_errors(error: ValidationError) -> Sequence[Mapping[str, Any]]:
    # Without the input, which may hold the sub.
    return error.errors(include_url=False, include_input=False)
