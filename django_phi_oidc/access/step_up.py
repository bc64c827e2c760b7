"""What a guard asks of a stronger sign-in, on its way to the door that begins one: sealed, so nobody else can ask.

It is the session's own, and lasts as long as somebody needs to follow a redirect.
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
from ..errors import Undecryptable
from .policy import Assurance

STEP_UP_LIFETIME = timedelta(minutes=10)
MAX_RETURN_PATH_LENGTH = 512
"""Characters. Sealed, five of them and all else of ours stay within the 4 KB of a cookie and the 8 KB of a header."""
_CONTEXT = ["step-up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUpRequest:
    """A stronger sign-in that a page wants of the person in a session."""

    session_id: str
    acr: tuple[str, ...]
    max_age_seconds: int | None
    """Seconds."""
    next_url: str = field(repr=False)
    created_timestamp: float
    """Seconds since the epoch."""


def create_step_up_url(assurance: Assurance, *, session_id: str, next_url: str, now: datetime) -> str:
    """Return where the stronger sign-in begins; empty where our URLs are not included. Raises: KeyMissing."""
    try:
        door = reverse("oidc_step_up")
    except NoReverseMatch:
        return ""
    demand = StepUpRequest(
        session_id=session_id,
        acr=assurance.acr,
        max_age_seconds=None if assurance.max_age is None else int(assurance.max_age.total_seconds()),
        next_url=next_url,
        created_timestamp=now.timestamp(),
    )
    return f"{door}?{urlencode({'demand': keyring.encrypt(json.dumps(asdict(demand)), context=_CONTEXT)})}"


def parse_step_up_request(encrypted_request: str, *, session_id: str, now: datetime) -> StepUpRequest | None:
    """Return what was asked; None for what is not ours, of another session, or over. Raises: KeyMissing."""
    try:
        made = json.loads(keyring.decrypt(encrypted_request, context=_CONTEXT))
        demand = StepUpRequest(**{**made, "acr": tuple(made["acr"])})
    except (Undecryptable, TypeError, KeyError):
        # The last two: another release of ours has sealed it.
        return None
    is_over = now.timestamp() - demand.created_timestamp > STEP_UP_LIFETIME.total_seconds()
    return None if is_over or demand.session_id != session_id else demand


def get_return_path(request: HttpRequest, *, is_safe_navigation: bool) -> str:
    """Return the page to come back to: this one where it is shown by a mere look at it, else the one that led here.

    Empty where neither is short enough to be remembered.
    """
    # A path may begin with two slashes, and would name a host.
    url = escape_leading_slashes(request.get_full_path()) if is_safe_navigation else request.headers.get("Referer", "")
    hosts = {request.get_host()}
    if url_has_allowed_host_and_scheme(url, allowed_hosts=hosts, require_https=request.is_secure()):
        parts = urlsplit(iri_to_uri(url))
        page = escape_leading_slashes(f"{parts.path}?{parts.query}" if parts.query else parts.path)
        if page and len(page) <= MAX_RETURN_PATH_LENGTH:
            return page
    page = escape_leading_slashes(escape_uri_path(request.path))
    return page if len(page) <= MAX_RETURN_PATH_LENGTH else ""
