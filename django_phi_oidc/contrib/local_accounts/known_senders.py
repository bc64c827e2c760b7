"""Browsers and networks from which a local account has signed in before.

Their guesses are counted apart from those of strangers, so that a flood of guesses does not stop
the persons who need the page. A browser has an encrypted cookie with a random id. The networks of
each account are stored.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse

from ..._internal import randomness
from ..._internal.sql import delete_in_batches
from ...audit.throttling import UNKNOWN_NETWORK, get_sender_network
from ...errors import KeyMissing
from ...login.state_cookie import (
    COOKIE_PREFIX,
    get_encrypted_cookie_name,
    read_encrypted_cookie,
    set_encrypted_cookie,
)
from .models import KnownNetwork

SENDER_LIFETIME = timedelta(days=400)
"""After the last sign-in. Browsers keep no cookie for longer."""
MAX_NETWORKS = 20
"""Per account: the least recently used ones are forgotten."""
_COOKIE_NAME = f"{COOKIE_PREFIX}local_browser"
_CONTEXT = "browser of a local account"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBrowser:
    """A browser in which a local account has signed in with its password."""

    browser: str = field(repr=False)
    """A random id."""
    signed_in_timestamp: float
    """Seconds since the epoch: the last such sign-in."""


def find_known_sender(request: HttpRequest, *, username: str, client_ip: str, now: datetime) -> str:
    """Return the counter key of the browser, or of the network of that account; empty for a
    stranger.

    Takes the same statements for each user name.
    """
    browser = find_known_browser(request, now=now)
    network = _find_known_network(username=username, client_ip=client_ip, now=now)
    if browser:
        return f"browser {browser}"
    if network is not None:
        return f"network {network.pk}"
    return ""


def find_known_browser(request: HttpRequest, *, now: datetime) -> str:
    """Return the random id of the browser; empty if no local account has signed in with it."""
    name = get_encrypted_cookie_name(request, _COOKIE_NAME)
    try:
        known = read_encrypted_cookie(request, name, KnownBrowser, context=_CONTEXT)
    except KeyMissing:
        return ""
    if known is None:
        return ""
    if now.timestamp() - known.signed_in_timestamp > SENDER_LIFETIME.total_seconds():
        return ""
    return known.browser


def remember_browser(response: HttpResponse, request: HttpRequest, *, now: datetime) -> None:
    """Set the cookie of a browser in which a local account has signed in.

    A browser keeps its id, so a person who signs in repeatedly has no further guesses. Without the
    encryption key, no cookie is set.
    """
    browser = find_known_browser(request, now=now) or randomness.token_b64url(16)
    known = KnownBrowser(browser=browser, signed_in_timestamp=now.timestamp())
    name = get_encrypted_cookie_name(request, _COOKIE_NAME)
    with suppress(KeyMissing):
        set_encrypted_cookie(
            response, request, name, known, context=_CONTEXT, lifetime=SENDER_LIFETIME
        )


def remember_network(user: Any, *, client_ip: str, now: datetime) -> None:
    """Store the network of a sign-in of a local account."""
    network = get_sender_network(client_ip)
    if network == UNKNOWN_NETWORK:
        return
    networks = KnownNetwork.objects.filter(user=user.pk)
    if networks.filter(network=network).update(last_used_at=now):
        return
    row = KnownNetwork(user_id=user.pk, network=network, last_used_at=now)
    # A concurrent sign-in from the same network may have inserted it.
    KnownNetwork.objects.bulk_create([row], ignore_conflicts=True)
    surplus = networks.order_by("-last_used_at", "-pk").values_list("pk", flat=True)[MAX_NETWORKS:]
    KnownNetwork.objects.filter(pk__in=list(surplus)).delete()


def delete_unused_networks(*, now: datetime) -> int:
    """Forget the networks that were not used for SENDER_LIFETIME, and return their number."""
    return delete_in_batches(KnownNetwork.objects.filter(last_used_at__lt=now - SENDER_LIFETIME))


def _find_known_network(*, username: str, client_ip: str, now: datetime) -> KnownNetwork | None:
    rows = KnownNetwork.objects.filter(
        network=get_sender_network(client_ip), last_used_at__gte=now - SENDER_LIFETIME
    )
    # The input is compared here and not in the query, because a user name may be of any type.
    for row in rows.select_related("user"):
        if row.user.get_username() == username:
            return row
    return None
