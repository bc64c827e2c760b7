"""A response in which something may be seen: nobody keeps it, and no error report tells what its code held."""

from functools import lru_cache
from types import FrameType
from typing import Any, cast

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.debug import SafeExceptionReporterFilter, get_exception_reporter_filter

from ..audit.request import session_id_of


class ReportWithoutVariables:
    """A filter of Django's error reports, on a page or in a mail, that shows of each frame its variables' names alone.

    With DEBUG too, where Django's own hides nothing. usual: the filter that does the rest.
    """

    def __init__(self, usual: SafeExceptionReporterFilter) -> None:
        self._usual = usual

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)

    def get_traceback_frame_variables(self, request: HttpRequest | None, tb_frame: FrameType) -> list[tuple[str, str]]:
        """Return each variable with stars for its value."""
        return [(name, self._usual.cleansed_substitute) for name in tb_frame.f_locals]


def keep_private(request: HttpRequest | None) -> None:
    """Let the response to request be kept by nobody, and no error report tell more than where an error was."""
    if request is None or is_private(request):
        return
    request.phi_oidc_private = True  # type: ignore[attr-defined]  # for mark
    filtering = ReportWithoutVariables(get_exception_reporter_filter(request))
    request.exception_reporter_filter = cast(SafeExceptionReporterFilter, filtering)
    # Django's `cache_page` would keep the response before any middleware could mark it. One that stands inside of a
    # guarded view says that it will only after this, so the word is taken away and not just answered.
    request.__class__ = _uncached(cast(Any, type(request)))


def is_private(request: HttpRequest) -> bool:
    """Say whether something was revealed in the response to request, so far."""
    return bool(getattr(request, "phi_oidc_private", False))


def mark(request: HttpRequest, response: HttpResponseBase) -> None:
    """Mark a response that nobody may keep, whatever its view said of caches.

    What is streamed to somebody whom an OP vouched for is marked in any case: its headers are gone when its code runs.
    """
    if is_private(request) or (_runs_while_sent(response) and _has_session(request)):
        response["Cache-Control"] = "no-store"


@lru_cache(maxsize=16)
def _uncached(kind: Any) -> type[HttpRequest]:
    """Return kind with the attribute by which Django's cache keeps a response, and which is False for good."""
    never = property(lambda request: False, lambda request, value: None)
    uncached: type[HttpRequest] = type(kind.__name__, (kind,), {"_cache_update_cache": never})
    return uncached


def _runs_while_sent(response: HttpResponseBase) -> bool:
    """A file has no code that could reveal something."""
    return response.streaming and getattr(response, "file_to_stream", None) is None


def _has_session(request: HttpRequest) -> bool:
    """A session that nobody has looked at was not signed in to, and a look would make the response vary by it."""
    session = request.session
    return session.accessed and session_id_of(session) is not None
