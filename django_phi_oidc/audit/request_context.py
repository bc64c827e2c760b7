"""Who acts, and from where, according to a request or a command."""

import ipaddress
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import BACKEND_SESSION_KEY
from django.contrib.auth import SESSION_KEY as SIGNED_IN
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from .._internal import randomness
from ..extensions import VerifiedAccessToken, access_token_sources, delegation_sources
from . import conf
from .declaration import Network
from .events import NewEvent, Origin
from .operators import OPERATOR_PREFIX, build_operator_actor, is_command_process

SESSION_KEY = "phi_oidc_session"
"""The Django session key of the OIDC session's id."""
LOCAL_SIGN_IN_KEY = "phi_oidc_local"
"""The Django session key of the authentication backend that verified the password of a local
account.
"""
ASSURANCE_KEY = "phi_oidc_assurance"
"""The Django session key of the ID Token's acr, and its auth_time in seconds since the epoch or
None.
"""
VECTOR_OF_TRUST_KEY = "phi_oidc_vot"
"""The Django session key of the ID Token's vot, under the declared trust mark; empty if it has
none.
"""
SUBJECT_KEY = "phi_oidc_subject"
"""The Django session key of the person's pseudonym, if their provider sends security events."""
# A client can only set META entries whose names begin with HTTP_.
_REQUEST_ID_KEY = "phi_oidc.request_id"
_UNIX_SOCKET_PEER_IP = "127.0.0.1"
_CACHE_ATTRIBUTE = "_phi_oidc_actor"
_REFERENCE_ATTRIBUTE = "_phi_oidc_reference"
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Session = Mapping[str, Any] | SessionBase
User = AbstractBaseUser | AnonymousUser


def _get_process_origin() -> Origin:
    """Return the origin of what no request causes: that of the operator of a command."""
    if is_command_process():
        return Origin(actor=build_operator_actor())
    return Origin()


_get_current_origin: ContextVar[Callable[[], Origin]] = ContextVar(
    "django_phi_oidc.audit.origin", default=_get_process_origin
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The person who acts, and the origin for the events of the act."""

    user: User
    origin: Origin
    request: HttpRequest | None = field(default=None, repr=False, compare=False)
    """The request that the act is part of, if any. If claims are disclosed, its response is marked
    no-store.
    """
    client_id: str = ""
    """The client that acts for the person with an access token, and so without a session."""
    acr: str = ""
    """Of the session's ID Token, or of the access token; empty if it had none."""
    vot: str = ""
    """The vector of trust of the session's ID Token; empty for an access token."""
    auth_time: datetime | None = None
    """When the person authenticated at the provider, according to the provider."""
    subject: str = ""
    """The pseudonym of the session's person, if their provider sends security events."""
    is_local: bool = False
    """The person signed in with the password of a local account, on its page."""

    @property
    def is_authenticated_by_provider(self) -> bool:
        """Whether a provider authenticated the user: in a session that it opened, or by an access
        token it issued.
        """
        return bool(self.user.is_authenticated) and bool(self.origin.session or self.client_id)

    @classmethod
    def from_request(cls, request: HttpRequest) -> "Actor":
        """Return the request's actor. Reads the user and the session, so the response varies by
        cookie.

        The OIDC session is left out if another user has signed in to the Django session:
        request.user may come from an API token that was sent together with a cookie. It is also
        left out if an access token of the provider authenticated the request: the assurance is then
        that of the token.
        The actor is kept on the request, and built again after its user, session, token or address
        changed.
        """
        # Wrapping requests, such as those of Django REST framework, have it as _request.
        wrapped = getattr(request, "_request", request)
        bearer = _find_access_token(wrapped)
        user = getattr(request, "user", None) or AnonymousUser()

        session: Session
        if bearer:
            session = {}
        else:
            session = getattr(request, "session", {})

        on_behalf_of = _find_represented_account(wrapped, user, session)
        sources = (
            bearer,
            user.pk,
            on_behalf_of,
            session.get(SIGNED_IN),
            session.get(SESSION_KEY),
            session.get(ASSURANCE_KEY),
            session.get(VECTOR_OF_TRUST_KEY),
            session.get(SUBJECT_KEY),
            session.get(LOCAL_SIGN_IN_KEY),
            session.get(BACKEND_SESSION_KEY),
            request.META.get("REMOTE_ADDR"),
            request.META.get("HTTP_X_FORWARDED_FOR"),
            conf.trusted_proxies(),
        )
        cached_sources, actor = getattr(wrapped, _CACHE_ATTRIBUTE, (None, None))
        if actor is None or actor.user is not user or cached_sources != sources:
            actor = cls._build(wrapped, user, session, bearer, on_behalf_of=on_behalf_of)
            setattr(wrapped, _CACHE_ATTRIBUTE, (sources, actor))
        return actor

    @classmethod
    def _build(
        cls,
        request: HttpRequest,
        user: User,
        session: Session,
        bearer: VerifiedAccessToken | None,
        *,
        on_behalf_of: str,
    ) -> "Actor":
        is_foreign = _is_foreign_session(user, session)
        if is_foreign:
            session_id = None
        else:
            session_id = find_oidc_session_id(session)

        if session_id:
            acr, timestamp = session.get(ASSURANCE_KEY, ("", None))
        else:
            acr = ""
            timestamp = None

        if timestamp is None:
            auth_time = None
        else:
            auth_time = datetime.fromtimestamp(timestamp, UTC)

        if bearer:
            acr = bearer.acr
            auth_time = bearer.auth_time

        if user.is_authenticated:
            actor = str(user.pk)
        else:
            actor = ""

        origin = Origin(
            actor=actor,
            session=str(session_id or ""),
            client_ip=get_client_ip(request, trusted_proxies=conf.trusted_proxies()),
            request_id=get_request_id(request),
            on_behalf_of=on_behalf_of,
        )

        if session_id:
            vot = session.get(VECTOR_OF_TRUST_KEY, "")
        else:
            vot = ""

        if session_id:
            subject = session.get(SUBJECT_KEY, "")
        else:
            subject = ""

        return cls(
            user=user,
            origin=origin,
            request=request,
            client_id=bearer.client_id if bearer else "",
            acr=acr,
            vot=vot,
            auth_time=auth_time,
            subject=subject,
            is_local=user.is_authenticated
            and not is_foreign
            and session_id is None
            and _is_local_sign_in(session),
        )


@contextmanager
def use_origin(get_origin: Callable[[], Origin]) -> Iterator[None]:
    """Make `current_origin` return get_origin() in this block, also in threads and tasks that
    inherit the context.
    """
    token = _get_current_origin.set(get_origin)
    try:
        yield
    finally:
        _get_current_origin.reset(token)


def current_origin() -> Origin:
    """Return the origin of the current request or management command; empty where there is none,
    as in a task.
    """
    return _get_current_origin.get()()


def attribute_to_command(new_event: NewEvent) -> NewEvent:
    """Return the event with the actor of the running command, unless it has an actor or an address
    of its own.
    """
    origin = new_event.origin
    if (
        origin.actor
        or origin.client_ip
        or not (actor := current_origin().actor).startswith(OPERATOR_PREFIX)
    ):
        return new_event
    return new_event._replace(origin=origin._replace(actor=actor))


def build_assurance_entry(*, acr: str, auth_time: datetime | None) -> list[Any]:
    """Return the value that the Django session stores under ASSURANCE_KEY."""
    return [acr, auth_time.timestamp() if auth_time else None]


def find_oidc_session_id(session: Session) -> uuid.UUID | None:
    """Return the id of the OIDC session that a Django session refers to, if any."""
    try:
        return uuid.UUID(session.get(SESSION_KEY))
    except (AttributeError, TypeError, ValueError):
        return None


def _find_access_token(request: HttpRequest) -> VerifiedAccessToken | None:
    """Return the access token that authenticated the request, if any."""
    for find_token in access_token_sources:
        token = find_token(request)
        if token is not None:
            return token
    return None


def _is_foreign_session(user: User, session: Session) -> bool:
    """Return whether another user has signed in to the Django session."""
    if not user.is_authenticated:
        return False
    return str(session.get(SIGNED_IN, user.pk)) != str(user.pk)


def _find_represented_account(request: HttpRequest, user: User, session: Session) -> str:
    """Return the primary key of the account for which the user acts; empty if there is none."""
    if not user.is_authenticated:
        return ""

    own_session = session
    if _is_foreign_session(user, session):
        own_session = {}

    for find_account in delegation_sources:
        account = find_account(user, own_session, request)
        if account:
            return account
    return ""


def _is_local_sign_in(session: Session) -> bool:
    """Return whether the user of a Django session signed in last on the page of the local accounts.

    Django's `login` replaces the backend, and keeps other entries if the user is the same.
    `get_user` of the backend of the local accounts returns no user who is inactive or no longer
    listed.
    """
    backend = session.get(LOCAL_SIGN_IN_KEY)
    return backend is not None and backend == session.get(BACKEND_SESSION_KEY)


def get_client_ip(request: HttpRequest, *, trusted_proxies: Sequence[Network]) -> str:
    """Return the address of the nearest hop that is not a trusted proxy; "" if the server does not
    know its peer.

    X-Forwarded-For is read from the right, and an entry is believed only if the hop after it is a
    trusted proxy. An entry that is not an address ends the search, and the hop after it is
    returned. A Unix socket peer is 127.0.0.1.
    """
    peer = request.META.get("REMOTE_ADDR", "")
    hop = _parse_address(peer or _UNIX_SOCKET_PEER_IP)
    if hop is None or (not peer and not _is_trusted(hop, trusted_proxies)):
        return ""
    for entry in reversed(request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")):
        address = None
        if _is_trusted(hop, trusted_proxies):
            address = _parse_address(entry.strip())

        if address is None:
            break
        hop = address
    return str(hop)


def is_from_trusted_proxy(request: HttpRequest, *, trusted_proxies: Sequence[Network]) -> bool:
    """Say whether the peer of the connection is a trusted proxy. A Unix socket peer is
    127.0.0.1.
    """
    peer = _parse_address(request.META.get("REMOTE_ADDR", "") or _UNIX_SOCKET_PEER_IP)
    return peer is not None and _is_trusted(peer, trusted_proxies)


def get_request_id(request: HttpRequest) -> str:
    """Return the request's id: created once per request and never taken from the client."""
    request_id: str = request.META.setdefault(_REQUEST_ID_KEY, "") or randomness.token_b64url(12)
    request.META[_REQUEST_ID_KEY] = request_id
    return request_id


def keep_reference(request: HttpRequest | None, event_id: uuid.UUID) -> None:
    """Keep the id of the event of a refusal on the request, for the page."""
    if request is not None:
        setattr(request, _REFERENCE_ATTRIBUTE, str(event_id))


def get_reference(request: HttpRequest) -> str:
    """Return the id of the event that refused the request; without an event, the request id, which
    the log has.
    """
    return str(getattr(request, _REFERENCE_ATTRIBUTE, "") or get_request_id(request))


def _is_trusted(address: IPAddress, trusted_proxies: Sequence[Network]) -> bool:
    return any(address in network for network in trusted_proxies)


def _parse_address(text: str) -> IPAddress | None:
    """Parse an address that may have a port or a zone, as some proxies write them."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
