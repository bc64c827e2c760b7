"""Django's error reports, on the DEBUG page and by mail, with secrets of the request masked."""

from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter

from .detector import mask


class MaskingReporter(ExceptionReporter):
    """For DEFAULT_EXCEPTION_REPORTER: masks the rendered report, and thus every part of it.

    DEFAULT_EXCEPTION_REPORTER_FILTER sees neither exception messages nor the URL. The project's
    filter still applies.
    """

    def get_traceback_html(self) -> SafeString:
        return SafeString(mask(super().get_traceback_html()))

    def get_traceback_text(self) -> SafeString:
        return SafeString(mask(super().get_traceback_text()))
