"""The encrypted request for a stronger sign-in, passed in the URL that begins it, so that it cannot
be forged.

It is bound to the session and expires after the time that following a redirect needs.
"""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.encoding import escape_uri_path, iri_to_uri
from django.utils.http import escape_leading_slashes, url_has_allowed_host_and_scheme, urlencode

from ..crypto import keyring
from .policy import Assurance

STEP_UP_LIFETIME = timedelta(minutes=10)
MAX_RETURN_PATH_LENGTH = 512
"""Characters. Five encrypted paths and our other data fit into a cookie of 4 KB and a header of 8
KB.
"""
_CONTEXT = ["step-up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUpRequest:
    """A stronger sign-in that a page requires of the person in a session."""

    session_id: str
    acr: tuple[str, ...]
    vot: tuple[str, ...] = ()
    max_age_seconds: int | None
    next_url: str = field(repr=False)
    created_timestamp: float
    """Seconds since the epoch."""


def create_step_up_url(
    assurance: Assurance, *, session_id: str, next_url: str, now: datetime
) -> str:
    """Return the URL that begins the stronger sign-in, or "" if our URLs are not included. Raises:
    KeyMissing.
    """
    try:
        url = reverse("oidc_step_up")
    except NoReverseMatch:
        return ""

    if assurance.max_age is None:
        max_age_seconds = None
    else:
        max_age_seconds = int(assurance.max_age.total_seconds())

    step_up_request = StepUpRequest(
        session_id=session_id,
        acr=assurance.acr,
        vot=assurance.vot,
        max_age_seconds=max_age_seconds,
        next_url=next_url,
        created_timestamp=now.timestamp(),
    )
    encrypted = keyring.encrypt(json.dumps(asdict(step_up_request)), context=_CONTEXT)
    return f"{url}?{urlencode({'demand': encrypted})}"


def parse_step_up_request(
    encrypted_request: str, *, session_id: str, now: datetime
) -> StepUpRequest | None:
    """Return the request; None if it is forged, expired or of another session. Raises:
    KeyMissing.
    """
    if (value := keyring.decrypt_external(encrypted_request, context=_CONTEXT)) is None:
        return None
    try:
        fields = json.loads(value)
        step_up_request = StepUpRequest(
            **{**fields, "acr": tuple(fields["acr"]), "vot": tuple(fields.get("vot", ()))}
        )
    except (TypeError, KeyError):
        # TypeError and KeyError: another release of this package has encrypted it.
        return None
    is_expired = (
        now.timestamp() - step_up_request.created_timestamp > STEP_UP_LIFETIME.total_seconds()
    )
    if is_expired or step_up_request.session_id != session_id:
        return None
    return step_up_request


def get_return_path(request: HttpRequest, *, is_safe_navigation: bool) -> str:
    """Return this page if a safe navigation shows it, else the one that led here; "" if neither is
    short enough.
    """
    # A path may begin with two slashes, and would then name a host.
    if is_safe_navigation:
        url = escape_leading_slashes(request.get_full_path())
    else:
        url = request.headers.get("Referer", "")

    hosts = {request.get_host()}
    if url_has_allowed_host_and_scheme(url, allowed_hosts=hosts, require_https=request.is_secure()):
        parts = urlsplit(iri_to_uri(url))
        page = escape_leading_slashes(f"{parts.path}?{parts.query}" if parts.query else parts.path)
        if page and len(page) <= MAX_RETURN_PATH_LENGTH:
            return page
    page = escape_leading_slashes(escape_uri_path(request.path))
    if len(page) <= MAX_RETURN_PATH_LENGTH:
        return page
    return ""
