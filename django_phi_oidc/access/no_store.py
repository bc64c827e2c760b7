"""Responses that may disclose health information: not stored in caches, and without values in error
reports.

Those that disclose substance use disorder records have the notice of 42 CFR 2.32 in a header.
"""

from functools import lru_cache
from types import FrameType
from typing import Any, cast

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.debug import SafeExceptionReporterFilter, get_exception_reporter_filter

from ..audit.request_context import find_oidc_session_id
from .part2 import SHORT_NOTICE

NOTICE_HEADER = "Redisclosure-Notice"


class VariableHidingReporterFilter:
    """A filter for Django's error reports (page or mail) that shows only the names of a frame's
    variables.

    It works with DEBUG, too, where Django's own filter hides nothing. wrapped_filter: does
    everything else.
    """

    def __init__(self, wrapped_filter: SafeExceptionReporterFilter) -> None:
        self._wrapped_filter = wrapped_filter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped_filter, name)

    def get_traceback_frame_variables(
        self, request: HttpRequest | None, tb_frame: FrameType
    ) -> list[tuple[str, str]]:
        frame_variables = []
        for name in tb_frame.f_locals:
            frame_variables.append((name, self._wrapped_filter.cleansed_substitute))
        return frame_variables


def mark_response_private(request: HttpRequest | None) -> None:
    """Prevent storing the response to request, and reduce its error reports to code locations and
    variable names.
    """
    if request is None or is_response_private(request):
        return
    request.phi_oidc_private = True  # type: ignore[attr-defined]  # for apply_no_store
    reporter_filter = VariableHidingReporterFilter(get_exception_reporter_filter(request))
    request.exception_reporter_filter = cast(SafeExceptionReporterFilter, reporter_filter)
    # Django's `cache_page` stores the response before a middleware can mark it. A cache_page inside
    # a guarded view sets its attribute only after this call, so the attribute is replaced by a
    # read-only one.
    request.__class__ = _create_uncacheable_class(cast(Any, type(request)))


def add_notice(request: HttpRequest | None) -> None:
    """Send the short notice with the response to request."""
    if request is not None:
        request.phi_oidc_part2 = True  # type: ignore[attr-defined]  # for apply_notice


def apply_notice(request: HttpRequest, response: HttpResponseBase) -> None:
    """Add the header to the response of a request for which add_notice was called."""
    if getattr(request, "phi_oidc_part2", False):
        response[NOTICE_HEADER] = SHORT_NOTICE


def is_response_private(request: HttpRequest) -> bool:
    """Return whether mark_response_private was called for request."""
    return bool(getattr(request, "phi_oidc_private", False))


def apply_no_store(request: HttpRequest, response: HttpResponseBase) -> None:
    """Replace Cache-Control in a response that must not be stored.

    A generated stream in an OIDC session is always marked: its headers are sent before its code
    runs.
    """
    # A file response runs no code that could reveal a claim.
    is_generated = response.streaming and getattr(response, "file_to_stream", None) is None
    session = request.session
    # Reading a session that the view did not read would add `Vary: Cookie` to the response.
    is_oidc_stream = is_generated and session.accessed and find_oidc_session_id(session) is not None
    if is_response_private(request) or is_oidc_stream:
        response["Cache-Control"] = "no-store"


@lru_cache(maxsize=16)
def _create_uncacheable_class(request_class: Any) -> type[HttpRequest]:
    """Return a subclass in which the attribute that makes Django's cache store the response is
    always False.
    """
    always_false = property(lambda request: False, lambda request, value: None)
    return type(request_class.__name__, (request_class,), {"_cache_update_cache": always_false})
