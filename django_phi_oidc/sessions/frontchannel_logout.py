"""Front-channel logout: the provider's page loads this view in an iframe of the user's browser.

Spec: OIDC Front-Channel Logout 1.0, R9.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import urlsplit

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_variables

from .. import conf
from .._internal import clock
from .._internal.view_decorators import public_view
from ..audit.events import Origin
from ..config.providers import ProviderDeclaration
from ..errors import MetadataError, TransportError
from ..provider.registry import get_provider
from .backchannel_logout import (
    PROVIDER_CALL_SECONDS,
    SERVER_ERRORS,
    SessionlessView,
    end_matching_sessions,
    get_request_origin,
    log_fault,
    logger,
)
from .digests import sha256_hex
from .lifecycle import EndedSession
from .models import EndReason
from .tasks import retry_on_lost_connection

_NETLOC_PATTERN = re.compile(r"[A-Za-z0-9.:\[\]-]+")


@sensitive_variables()
def end_sessions_of_sid(
    sid: str, *, issuer: str, origin: Origin, now: datetime
) -> list[EndedSession]:
    """End the sessions with that `sid` of that issuer; return them. Spec: Front-Channel Logout
    2.
    """
    # Nothing is written without such a session, because anyone can send the request.
    condition = Q(issuer=issuer, sid_digest=sha256_hex(sid))
    return end_matching_sessions(condition, EndReason.FRONTCHANNEL_LOGOUT, origin=origin, now=now)


@method_decorator([public_view, sensitive_variables()], name="dispatch")
class FrontchannelLogoutView(SessionlessView):
    """End the sessions with the `sid` of the request. The response does not show if there were
    any.
    """

    http_method_names = ("get",)

    def get(self, request: HttpRequest) -> HttpResponse:
        # Ignore the encoding that the request states: some of Python's codecs are not text
        # encodings.
        request.encoding = "utf-8"
        issuer = request.GET.get("iss", "")
        sid = request.GET.get("sid", "")
        providers = []
        for provider in conf.providers().values():
            if provider.issuer == issuer:
                providers.append(provider)
        response = HttpResponse(content_type="text/plain")
        if providers and sid:
            origin = get_request_origin(request)
            now = clock.now()
            try:
                retry_on_lost_connection(
                    lambda: end_sessions_of_sid(sid, issuer=issuer, origin=origin, now=now)
                )
            except SERVER_ERRORS as fault:
                log_fault(fault, provider_name=providers[0].name)
                response.status_code = 503

        origins: set[str] = set()
        for provider in providers:
            origins.update(_iter_frame_ancestors(provider))
        ancestors = sorted(origins)

        response["Content-Security-Policy"] = " ".join(
            ["frame-ancestors", *(ancestors or ["'none'"])]
        )
        # Browsers that know frame-ancestors ignore X-Frame-Options, which can't name the provider.
        response.xframe_options_exempt = bool(ancestors)
        return response


def _iter_frame_ancestors(declaration: ProviderDeclaration) -> Iterator[str]:
    """Yield the origins of the provider's pages: its issuer, and the endpoints that users visit."""
    urls = [declaration.issuer]
    try:
        metadata = get_provider(declaration.name).get_metadata(
            timeout_seconds=PROVIDER_CALL_SECONDS
        )
        urls += [metadata.authorization_endpoint, metadata.end_session_endpoint]
    except (TransportError, MetadataError) as fault:
        logger.warning(
            "Provider %s may frame only from the origin of its issuer: %s.",
            declaration.name,
            fault.code,
        )
    for url in filter(None, urls):
        parts = urlsplit(url)
        if _NETLOC_PATTERN.fullmatch(parts.netloc):
            yield f"{parts.scheme}://{parts.netloc}"
