"""Django's error reports, on the page with DEBUG and by mail, with masks where a secret of the request would stand."""

from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter

from .detector import mask


class MaskingReporter(ExceptionReporter):
    """For DEFAULT_EXCEPTION_REPORTER: masks what is written at last, so that no part of a report is left out.

    A filter (DEFAULT_EXCEPTION_REPORTER_FILTER) sees neither an exception's own words nor the URL; the project's one
    does its part before.
    """

    def get_traceback_html(self) -> SafeString:
        """Return the page, masked."""
        return SafeString(mask(super().get_traceback_html()))

    def get_traceback_text(self) -> SafeString:
        """Return the text, masked."""
        return SafeString(mask(super().get_traceback_text()))
