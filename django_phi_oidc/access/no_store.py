"""A response in which something may be seen: nobody keeps it, and no error report tells what its code held."""

from functools import lru_cache
from types import FrameType
from typing import Any, cast

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.debug import SafeExceptionReporterFilter, get_exception_reporter_filter

from ..audit.request_context import find_oidc_session_id


class VariableHidingReporterFilter:
    """A filter of Django's error reports, on a page or in a mail, that shows of each frame its variables' names alone.

    With DEBUG too, where Django's own hides nothing. usual: the filter that does the rest.
    """

    def __init__(self, wrapped_filter: SafeExceptionReporterFilter) -> None:
        self._wrapped_filter = wrapped_filter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped_filter, name)

    def get_traceback_frame_variables(self, request: HttpRequest | None, tb_frame: FrameType) -> list[tuple[str, str]]:
        """Return each variable with stars for its value."""
        return [(name, self._wrapped_filter.cleansed_substitute) for name in tb_frame.f_locals]


def mark_response_private(request: HttpRequest | None) -> None:
    """Let the response to request be kept by nobody, and no error report tell more than where an error was."""
    if request is None or is_response_private(request):
        return
    request.phi_oidc_private = True  # type: ignore[attr-defined]  # for mark
    filtering = VariableHidingReporterFilter(get_exception_reporter_filter(request))
    request.exception_reporter_filter = cast(SafeExceptionReporterFilter, filtering)
    # Django's `cache_page` would keep the response before any middleware could mark it. One that stands inside of a
    # guarded view says that it will only after this, so the word is taken away and not just answered.
    request.__class__ = _create_uncacheable_class(cast(Any, type(request)))


def is_response_private(request: HttpRequest) -> bool:
    """Say whether something was revealed in the response to request, so far."""
    return bool(getattr(request, "phi_oidc_private", False))


def apply_no_store(request: HttpRequest, response: HttpResponseBase) -> None:
    """Mark a response that nobody may keep, whatever its view said of caches.

    What is streamed to somebody whom an OP vouched for is marked in any case: its headers are gone when its code runs.
    """
    if is_response_private(request) or (_is_generated_stream(response) and _has_oidc_session(request)):
        response["Cache-Control"] = "no-store"


@lru_cache(maxsize=16)
def _create_uncacheable_class(request_class: Any) -> type[HttpRequest]:
    """Return kind with the attribute by which Django's cache keeps a response, and which is False for good."""
    never = property(lambda request: False, lambda request, value: None)
    uncached: type[HttpRequest] = type(request_class.__name__, (request_class,), {"_cache_update_cache": never})
    return uncached


def _is_generated_stream(response: HttpResponseBase) -> bool:
    """A file has no code that could reveal something."""
    return response.streaming and getattr(response, "file_to_stream", None) is None


def _has_oidc_session(request: HttpRequest) -> bool:
    """A session that nobody has looked at was not signed in to, and a look would make the response vary by it."""
    session = request.session
    return session.accessed and find_oidc_session_id(session) is not None
