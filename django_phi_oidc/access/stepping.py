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

from .. import keyring
from ..errors import Undecryptable
from .policy import Assurance

LIFETIME = timedelta(minutes=10)
LONGEST_NEXT = 512
"""Characters. Sealed, five of them and all else of ours stay within the 4 KB of a cookie and the 8 KB of a header."""
_CONTEXT = ["step-up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A stronger sign-in that a page wants of the person in a session."""

    session: str
    acr: tuple[str, ...]
    max_age: int | None
    """Seconds."""
    next_url: str = field(repr=False)
    made_at: float
    """Seconds since the epoch."""


def step_up_url(assurance: Assurance, *, session: str, next_url: str, now: datetime) -> str:
    """Return where the stronger sign-in begins; empty where our URLs are not included. Raises: KeyMissing."""
    try:
        door = reverse("oidc_step_up")
    except NoReverseMatch:
        return ""
    demand = Demand(
        session=session,
        acr=assurance.acr,
        max_age=None if assurance.max_age is None else int(assurance.max_age.total_seconds()),
        next_url=next_url,
        made_at=now.timestamp(),
    )
    return f"{door}?{urlencode({'demand': keyring.seal(json.dumps(asdict(demand)), context=_CONTEXT)})}"


def open_demand(text: str, *, session: str, now: datetime) -> Demand | None:
    """Return what was asked; None for what is not ours, of another session, or over. Raises: KeyMissing."""
    try:
        made = json.loads(keyring.open_sealed(text, context=_CONTEXT))
        demand = Demand(**{**made, "acr": tuple(made["acr"])})
    except (Undecryptable, TypeError, KeyError):
        # The last two: another release of ours has sealed it.
        return None
    is_over = now.timestamp() - demand.made_at > LIFETIME.total_seconds()
    return None if is_over or demand.session != session else demand


def page_of(request: HttpRequest, *, is_shown: bool) -> str:
    """Return the page to come back to: this one where it is shown by a mere look at it, else the one that led here.

    Empty where neither is short enough to be remembered.
    """
    # A path may begin with two slashes, and would name a host.
    url = escape_leading_slashes(request.get_full_path()) if is_shown else request.headers.get("Referer", "")
    hosts = {request.get_host()}
    if url_has_allowed_host_and_scheme(url, allowed_hosts=hosts, require_https=request.is_secure()):
        parts = urlsplit(iri_to_uri(url))
        page = escape_leading_slashes(f"{parts.path}?{parts.query}" if parts.query else parts.path)
        if page and len(page) <= LONGEST_NEXT:
            return page
    page = escape_leading_slashes(escape_uri_path(request.path))
    return page if len(page) <= LONGEST_NEXT else ""
