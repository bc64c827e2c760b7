"""What an audit event is: its fields, its one spelling in bytes, and its MAC. No Django.

The canonical form is the RFC 8785 text of all fields but the MAC, `detail` being an object in it. The trail keeps that
object's canonical text, so the stored text stands in the canonical form as it is, and SQL can build the same bytes.
That is unambiguous because no detail key bears the name of a field. A version, once written, is never reinterpreted.
"""

import hashlib
import hmac
import json
import logging
import re
import unicodedata
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Literal, NamedTuple

from .._internal.overrides import override_global
from .actions import DETAIL_KEYS, RESERVED_PREFIXES, UNKEYED_RESOURCE_TYPES
from .actions import Action as Action  # noqa: PLC0414 -- whoever makes an event names its action

VERSION = 1
MAX_CHARACTERS = 256
MAX_ITEMS = 64
MAX_INTEGER = 2**53
SANITIZED_KEY = "sanitized"
"""The detail key that is true when a string or list of this event was cut, or lost characters that can't be shown."""

EventOutcome = Literal["success", "failure", "error"]
OUTCOMES: tuple[EventOutcome, ...] = ("success", "failure", "error")
# Controls, lone surrogates, and the two separators that end a line for some readers of logs.
_DROPPED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_ACTION_PATTERN = re.compile(r"([a-z0-9_]+)\.[a-z0-9_]+")
_registered_actions: dict[str, frozenset[str]] = {}
_registered_disclosures: set[str] = set()


class Origin(NamedTuple):
    """Who acted and from where; what is not known is empty."""

    actor: str = ""
    """The user's primary key as text."""
    session: str = ""
    """The opaque id of the OIDC session."""
    client_ip: str = ""
    """Of the nearest hop that is no trusted proxy."""
    request_id: str = ""
    """What the log's lines about the request bear, too."""


class NewEvent(NamedTuple):
    """What is to be written, before it has an id and a MAC."""

    action: str
    """An Action, or one that the host project registered."""
    origin: Origin
    """Who acted, and from where."""
    now: datetime
    """Aware: when it was done."""
    outcome: EventOutcome = "success"
    """`success`, `failure` or `error`."""
    subject: str = ""
    """Whose data: the person's opaque UUID here."""
    provider: str = ""
    """The declared name."""
    purpose: str = ""
    """HL7 PurposeOfUse code."""
    resource: str = ""
    """`Type/id`, a key and no name."""
    reason: str = ""
    """A code, of no person."""
    detail: Mapping[str, Any] | None = None
    """Flat, with the keys that the action may have, and never a token, a `sub` or a claim value."""


class Event(NamedTuple):
    """One event as it is hashed, its fields in the order of the trail's columns."""

    id: uuid.UUID
    v: int
    mac_key: str
    occurred_at: datetime
    action: str
    outcome: str
    actor: str = ""
    subject: str = ""
    provider: str = ""
    session: str = ""
    client_ip: str = ""
    purpose: str = ""
    resource: str = ""
    reason: str = ""
    request_id: str = ""
    detail: str = "{}"
    """The canonical JSON text of a flat object."""


@dataclass(frozen=True, slots=True)
class AuthenticatedEvent:
    """An event with the MAC over its canonical bytes."""

    event: Event
    mac: bytes = field(repr=False)


EVENT_FIELDS = tuple(sorted(Event._fields))
_TEXT_FIELDS = tuple(name for name in EVENT_FIELDS if name not in {"v", "id", "occurred_at", "detail"})


def register_actions(actions: Mapping[str, Collection[str]], *, disclosures: Collection[str] = ()) -> None:
    """Let this process write actions of the host project's own: each name with the keys that its `detail` may have.

    A name is `prefix.name`, of a-z, 0-9 and _, with a prefix that is not ours; a key is an ASCII identifier that no
    field of an event bears. disclosures: those of them by which somebody sees what is of a person: the person may ask
    for them. All are registered, or none; again with the same keys changes nothing.
    Raises: ValueError, for one that was registered with other keys, too.
    """
    new = {name: _validate_detail_keys(name, keys) for name, keys in actions.items()}
    for name, keys in new.items():
        if _registered_actions.get(name, keys) != keys:
            raise ValueError(f"{name} is registered with other detail keys.")
    if isinstance(disclosures, str) or not new.keys() >= set(disclosures):
        raise ValueError("disclosures is a list of actions that are registered with it.")
    _registered_actions.update(new)
    _registered_disclosures.update(disclosures)


def get_registered_disclosure_actions() -> frozenset[str]:
    """Return the host project's actions by which somebody sees what is of a person."""
    return frozenset(_registered_disclosures)


def build_event(new_event: NewEvent, *, id: uuid.UUID, mac_key: str) -> Event:  # noqa: A002 -- the field's name
    """Return the event of act, its strings cleaned and cut, and flagged where that changed one.

    What is not allowed in its detail is dropped as `without_refused` tells.
    Raises: ValueError for an action or outcome out of the vocabulary, and a naive time.
    """
    if _find_detail_keys(new_event.action) is None or new_event.outcome not in OUTCOMES:
        raise ValueError("The action or the outcome is not in the vocabulary.")
    if new_event.now.utcoffset() is None:
        raise ValueError("The time of an event must be aware.")
    new_event = drop_refused_detail(new_event)
    detail, origin = new_event.detail or {}, new_event.origin
    # A member of an enumeration is a string that the database's driver takes ten times as long for.
    given = (
        *(
            str(new_event.action),
            new_event.outcome,
            origin.actor,
            new_event.subject,
            new_event.provider,
            origin.session,
            origin.client_ip,
        ),
        *(new_event.purpose, new_event.resource, new_event.reason, origin.request_id),
    )
    texts = given if _is_clean(given) else tuple(map(sanitize_text, given))
    kept = {key: _sanitize_value(value) for key, value in detail.items()}
    if texts != given or list(kept.values()) != list(map(_tuple_as_list, detail.values())):
        kept[SANITIZED_KEY] = True
    action, outcome, actor, subject, provider, session, client_ip, purpose, resource, reason, request_id = texts
    return Event(
        *(
            id,
            VERSION,
            mac_key,
            new_event.now.astimezone(UTC),
            action,
            outcome,
            actor,
            subject,
            provider,
            session,
            client_ip,
        ),
        *(purpose, resource, reason, request_id, _canonical_json(kept)),
    )


def drop_refused_detail(new_event: NewEvent) -> NewEvent:
    """Return act without what is not allowed in its detail, having told the log of it, by its key alone.

    In tests, `strictly` makes it an error. Raises: ValueError, then.
    """
    refused = list_refused_detail_keys(new_event)
    if not refused:
        return new_event
    _report_refused_detail(
        f"{new_event.action}: not allowed in its detail: {', '.join(ascii(key)[:64] for key in refused)}."
    )
    return new_event._replace(
        detail={key: value for key, value in (new_event.detail or {}).items() if key not in refused}
    )


def list_refused_detail_keys(new_event: NewEvent) -> tuple[str, ...]:
    """Return the keys of act's detail that are not allowed for its action or whose value is not of an allowed type.

    Allowed are strings, booleans, integers below 2**53 either way, and lists of those; a float has no canonical form.
    """
    if not new_event.detail:
        return ()
    allowed = _find_detail_keys(new_event.action) or frozenset()
    return tuple([key for key, value in new_event.detail.items() if key not in allowed or not _is_allowed_value(value)])


def compute_resource_pseudonym(resource: str, *, key: bytes) -> str:
    """Return resource with a pseudonym in place of its id: 128 bits of HMAC-SHA256, as hexadecimal digits.

    resource: `Type/id`; where there is no type, all of it is taken for the id. The same key makes the same pseudonym of
    the same resource, and others of the same id of another type. PLAIN_RESOURCES stay as they are.
    """
    kind, slash, id_ = resource.partition("/") if "/" in resource else ("", "", resource)
    if not id_ or (kind or id_) in UNKEYED_RESOURCE_TYPES:
        return resource
    # An event's canonical bytes, which the same key is used for, begin with a brace.
    message = b"django_phi_oidc resource id\x00" + resource.encode("utf-8", "surrogatepass")
    return f"{kind}{slash}{hmac.digest(key, message, hashlib.sha256)[:16].hex()}"


def _is_clean(texts: tuple[str, ...]) -> bool:
    """Say whether nothing is to be done to any of texts, as far as that can be told cheaply."""
    together = "".join(texts)
    is_short = len(together) <= MAX_CHARACTERS or max(map(len, texts)) <= MAX_CHARACTERS
    return is_short and together.isascii() and together.isprintable()


def sanitize_text(text: str) -> str:
    """Return text without control characters, line separators and lone surrogates, 256 characters at most."""
    if text.isascii() and text.isprintable():
        return text[:MAX_CHARACTERS]
    return "".join(char for char in text if unicodedata.category(char) not in _DROPPED_CATEGORIES)[:MAX_CHARACTERS]


def canonical_bytes(event: Event) -> bytes:
    """Return the bytes that the MAC is over. Spec: RFC 8785."""
    return _serialize_fields(event).encode("utf-8")


def compute_mac(event: Event, key: bytes) -> bytes:
    """Return HMAC-SHA256 over the event's canonical bytes, 32 bytes. Spec: RFC 2104."""
    return create_mac_function(key)(canonical_bytes(event))


@lru_cache(maxsize=64)
def create_mac_function(key: bytes) -> Callable[[bytes], bytes]:
    """Return what computes HMAC-SHA256 under key over canonical bytes, 32 bytes, the work for the key being done.

    The library's own takes twice as long, and a verification makes millions. Requires: a key of 64 bytes at most.
    Spec: RFC 2104.
    """
    padded = key.ljust(hashlib.sha256().block_size, b"\0")
    inner, outer = (hashlib.sha256(bytes(x ^ pad for x in padded)).copy for pad in (0x36, 0x5C))

    def compute(canonical: bytes) -> bytes:
        within, around = inner(), outer()
        within.update(canonical)
        around.update(within.digest())
        return around.digest()

    return compute


def serialize_event(authenticated_event: AuthenticatedEvent) -> str:
    """Return the event as one line of canonical JSON, with its MAC as the hexadecimal member `mac`."""
    return _serialize_fields(authenticated_event.event, mac_member=f'"mac":"{authenticated_event.mac.hex()}",')


def parse_event(text: str) -> AuthenticatedEvent:
    """Return the event that `event_text` wrote. The MAC is NOT checked.

    Raises: ValueError when the text is not, byte for byte, what `event_text` writes of an event of this version.
    """
    try:
        raw = json.loads(text)
        mac = bytes.fromhex(raw.pop("mac"))
        raw["id"] = uuid.UUID(raw["id"])
        raw["occurred_at"] = datetime.fromisoformat(raw["occurred_at"])
        is_flat = isinstance(raw["detail"], dict)
        raw["detail"] = _canonical_json(raw["detail"])
        event = Event(**raw)
        is_exact = serialize_event(AuthenticatedEvent(event, mac)) == text
        is_clean = all(sanitize_text(getattr(event, name)) == getattr(event, name) for name in _TEXT_FIELDS)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("Not an event.") from error
    if not (is_flat and is_exact and is_clean) or event.v != VERSION or len(mac) != hashlib.sha256().digest_size:
        raise ValueError("Not an event of this version.")
    return AuthenticatedEvent(event, mac)


def raise_on_refused_detail() -> AbstractContextManager[None]:
    """Refuse a detail that is not allowed, in this process, for the length of the block: for tests."""
    return override_global(globals(), "_report_refused_detail", _raise_value_error)


def _raise_value_error(message: str) -> None:
    raise ValueError(message)


_report_refused_detail: Callable[[str], None] = logging.getLogger("phi_oidc.audit").error


def _find_detail_keys(action: str) -> frozenset[str] | None:
    keys = DETAIL_KEYS.get(action)
    return _registered_actions.get(action) if keys is None else keys


def _validate_detail_keys(name: str, keys: Collection[str]) -> frozenset[str]:
    match = _ACTION_PATTERN.fullmatch(name)
    if match is None or len(name) > MAX_CHARACTERS:
        raise ValueError(f"{name!r} is not prefix.name of a-z, 0-9 and _.")
    if match[1] in RESERVED_PREFIXES:
        raise ValueError(f"{name}: the prefix {match[1]} is ours.")
    # A text is a collection of its letters.
    if isinstance(keys, str) or not all(key.isascii() and key.isidentifier() for key in keys):
        raise ValueError(f"{name}: the detail keys are a set of ASCII identifiers.")
    if taken := {*EVENT_FIELDS, "mac", SANITIZED_KEY}.intersection(keys):
        raise ValueError(f"{name}: no detail key may be called {', '.join(sorted(taken))}.")
    return frozenset(keys)


def _serialize_fields(event: Event, *, mac_member: str = "") -> str:
    """Return the event's members in their order; mac: one more."""
    id_, v, mac_key, occurred_at, *texts, detail = event
    together = "".join(texts)
    if not together.isprintable() or '"' in together or "\\" in together:
        texts = [encode_basestring(text)[1:-1] for text in texts]
    action, outcome, actor, subject, provider, session, client_ip, purpose, resource, reason, request_id = texts
    at = occurred_at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    return (
        f'{{"action":"{action}","actor":"{actor}","client_ip":"{client_ip}","detail":{detail},"id":"{id_}",{mac_member}'
        f'"mac_key":{encode_basestring(mac_key)},"occurred_at":"{at}Z","outcome":"{outcome}","provider":"{provider}",'
        f'"purpose":"{purpose}","reason":"{reason}","request_id":"{request_id}","resource":"{resource}",'
        f'"session":"{session}","subject":"{subject}","v":{v}}}'
    )


def _canonical_json(detail: Mapping[str, Any]) -> str:
    # RFC 8785 sorts by UTF-16 units and spells floats its own way: our names are ASCII, and there are no floats.
    members = [
        f"{encode_basestring(key)}:{encode_basestring(value) if isinstance(value, str) else _encode_json(value)}"
        for key, value in sorted(detail.items())
    ]
    return f"{{{','.join(members)}}}"


_encode_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _is_allowed_value(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_scalar, value))
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < MAX_INTEGER)


def _sanitize_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_sanitize_value(item) for item in value[:MAX_ITEMS]]
    return sanitize_text(value) if isinstance(value, str) else value


def _tuple_as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
