"""The application of a portal under gunicorn. Requests may put the clock of this app forward, never back.

So a page can be half a minute after the last one without a wait. Each portal reads the header X-Seconds-Later, so that
it costs all of them the same.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application


class FastForward:
    """The clock, and the application whose requests put it forward."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._later = timedelta()

    def now(self) -> datetime:
        """Return the time of the portal."""
        return datetime.now(UTC) + self._later

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if seconds := environ.get("HTTP_X_SECONDS_LATER"):
            self._later = max(self._later, timedelta(seconds=int(seconds)))
        response: Iterable[bytes] = self._application(environ, start_response)
        return response


application = FastForward(get_wsgi_application())
if settings.CONTENDER.startswith("phi_oidc"):
    from django_phi_oidc._internal.clock import override_clock

    _clock = override_clock(application.now)
    _clock.__enter__()
