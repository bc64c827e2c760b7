"""The audit event: its fields, its canonical bytes, and its MAC. No Django.

The canonical form is the RFC 8785 text of all fields except the MAC; `detail` is an object in it.
The audit log stores the canonical text of that object, which is copied into the canonical form as
it is. This is unambiguous because no detail key has the name of a field. A version, once written,
is never reinterpreted. `serialize_columns` is the only code that builds this form, of an event that
is recorded and of a row that is sealed or verified.
"""

import hashlib
import hmac
import json
import logging
import re
import unicodedata
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from .._internal.overrides import override_global
from .actions import (
    DECLARATION_ACTIONS,
    DETAIL_KEYS,
    DETAIL_TYPES,
    RESERVED_PREFIXES,
    ROLE_WITHDRAWAL_KEYS,
    UNKEYED_RESOURCE_TYPES,
    WITHDRAWAL_ACTIONS,
    DetailType,
)
from .actions import Action as Action  # noqa: PLC0414 -- code that creates an event names its action

VERSION = 1
MAX_CHARACTERS = 256
MAX_ITEMS = 64
MAX_INTEGER = 2**53
MAX_EVENT_BYTES = 1024 * 1024
"""Of the canonical form. A larger event would be refused by every collector, and would stop its
sink.
"""
MAX_ID_TIME_DIFFERENCE_MICROSECONDS = 1_000_000
"""Between the time of an event and that of its id, which the recorder takes from one clock."""
SANITIZED_KEY = "sanitized"
"""The detail key that is true if a string or list of this event was truncated or lost unprintable
characters.
"""
SIGNED_LATE_KEY = "signed_late"
"""The detail key that is true if the event was committed without a MAC, and got it when it left the
outbox. Until then the secret key of the portal, and not a key of the log, protected it.
"""
_SIGNED_LATE_BYTES = SIGNED_LATE_KEY.encode()

EventOutcome = Literal["success", "failure", "error"]
OUTCOMES: tuple[EventOutcome, ...] = ("success", "failure", "error")
# Control characters, lone surrogates, and the two separators that some log readers treat as line
# ends.
_DROPPED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_ACTION_PATTERN = re.compile(r"([a-z0-9_]+)\.[a-z0-9_]+")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARSE_ERRORS = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
"""Of text that is no event: OverflowError for a time that is before year 1 or after 9999 in UTC."""
_DECLARATION_PREFIXES = tuple(
    f'{{"action":"{action}"'.encode() for action in sorted(DECLARATION_ACTIONS)
)
_RESTORED_PREFIX = b'{"action":"audit.restored"'
_registered_actions: dict[str, frozenset[str]] = {}
_registered_labels: dict[str, Any] = {}
_registered_disclosures: set[str] = set()


class Origin(NamedTuple):
    """Who acted and from where; unknown values are empty."""

    actor: str = ""
    """The user's primary key as text; `os:` and more for the operator of a command
    (`audit.operators`).
    """
    session: str = ""
    """The opaque id of the OIDC session."""
    client_ip: str = ""
    """Address of the nearest hop that is not a trusted proxy."""
    request_id: str = ""
    """The same id is in the log lines about the request."""
    on_behalf_of: str = ""
    """The primary key, as text, of the account for which the actor acts, from
    `extensions.delegation_sources`. Empty if no source returns one.
    """


class NewEvent(NamedTuple):
    """An event to be written, before it has an id and a MAC."""

    action: str
    """An Action, or an action that the host project registered."""
    origin: Origin
    """Who acted, and from where."""
    now: datetime
    """Aware: when it happened."""
    outcome: EventOutcome = "success"
    """`success`, `failure` or `error`."""
    subject: str = ""
    """UUID (`PairwiseSubject.uuid`) of the person whose data was used."""
    provider: str = ""
    """The declared name."""
    purpose: str = ""
    """HL7 PurposeOfUse code."""
    resource: str = ""
    """`Type/id`, with a key, never a name."""
    reason: str = ""
    """A code without personal data."""
    detail: Mapping[str, Any] | None = None
    """Flat, with the keys that the action allows; never a token, a `sub` or a claim value."""


class EventFields(TypedDict):
    """The fields of a NewEvent other than its action, as keyword arguments."""

    origin: Origin
    now: datetime
    outcome: NotRequired[EventOutcome]
    subject: NotRequired[str]
    provider: NotRequired[str]
    purpose: NotRequired[str]
    resource: NotRequired[str]
    reason: NotRequired[str]
    detail: NotRequired[Mapping[str, Any] | None]


class Event(NamedTuple):
    """An event as it is hashed, its fields in the order of the table's columns."""

    id: uuid.UUID
    v: int
    mac_key: str
    occurred_at: datetime
    action: str
    outcome: str
    actor: str = ""
    on_behalf_of: str = ""
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
    """While `mac_key` is empty, the event waits in the outbox for its MAC, and this is the proof of
    the process that wrote it (`audit.storage`).
    """


canonical_json = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode
"""Return a value as one line of canonical JSON. Requires: keys are ASCII, and no number is a
fraction, of which RFC 8785 has another order and another format.
"""
EVENT_FIELDS = tuple(sorted(Event._fields))
_TEXT_FIELDS = tuple(
    name for name in EVENT_FIELDS if name not in {"v", "id", "occurred_at", "detail"}
)


def register_actions(
    actions: Mapping[str, Collection[str]],
    *,
    disclosures: Collection[str] = (),
    labels: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Allow this process to write actions of the host project; each name maps to the keys that its
    `detail` may have.

    A name is `prefix.name`, of a-z, 0-9 and _, whose prefix this package does not reserve. A key is
    an ASCII identifier that is not a field of an event. A key that actions of this package also
    have, such as `claims`, has the type that it has there. disclosures: those of the actions that
    disclose a person's data, which the person may have accounted. labels: what the admin shows
    instead of an action's name, such as a result of `gettext_lazy`. Registers all or none;
    repeating a registration with the same keys changes nothing.
    Raises: ValueError, also for an action that is already registered with other keys.
    """
    new = {name: _validate_detail_keys(name, keys) for name, keys in actions.items()}
    for name, keys in new.items():
        if _registered_actions.get(name, keys) != keys:
            raise ValueError(f"{name} is registered with other detail keys.")
    if isinstance(disclosures, str) or not new.keys() >= set(disclosures):
        raise ValueError(
            "disclosures must be a list of actions that are registered in the same call."
        )
    if not new.keys() >= labels.keys():
        raise ValueError("labels must be those of actions that are registered in the same call.")
    _registered_actions.update(new)
    _registered_disclosures.update(disclosures)
    _registered_labels.update(labels)


def list_actions() -> list[str]:
    """Return the actions of this package and those that the host project registered in this
    process, sorted.
    """
    return sorted([*(action.value for action in Action), *_registered_actions])


def find_registered_label(action: str) -> str:
    """Return the host project's label of its action; empty if it has none."""
    return str(_registered_labels.get(action, ""))


def get_registered_disclosure_actions() -> frozenset[str]:
    """Return the host project's actions that disclose a person's data."""
    return frozenset(_registered_disclosures)


def build_event(new_event: NewEvent, *, id: uuid.UUID, mac_key: str) -> Event:  # noqa: A002 -- the field's name
    """Build the event, with its strings sanitized, and flagged if that changed one.

    mac_key: empty: the event gets its MAC later, and is flagged for that.
    Detail keys and values that are not allowed are dropped (`drop_refused_detail`).
    Raises: ValueError for an unknown action or outcome, and for a naive time.
    """
    if _find_detail_keys(new_event.action) is None or new_event.outcome not in OUTCOMES:
        raise ValueError("The action or the outcome is unknown.")
    if new_event.now.utcoffset() is None:
        raise ValueError("The time of an event must be aware.")
    new_event = drop_refused_detail(new_event)
    detail = new_event.detail or {}
    origin = new_event.origin
    # str(): the database driver takes ten times as long for an enumeration member. The order is
    # that of Event's fields.
    texts = (
        str(new_event.action),
        new_event.outcome,
        origin.actor,
        origin.on_behalf_of,
        new_event.subject,
        new_event.provider,
        origin.session,
        origin.client_ip,
        new_event.purpose,
        new_event.resource,
        new_event.reason,
        origin.request_id,
    )
    clean_texts: tuple[str, ...]
    if _is_clean(texts):
        clean_texts = texts
    else:
        clean_texts = tuple(map(sanitize_text, texts))

    values = {key: _sanitize_value(value) for key, value in detail.items()}
    originals = []
    for value in detail.values():
        originals.append(list(value) if isinstance(value, tuple) else value)
    if clean_texts != texts or list(values.values()) != originals:
        values[SANITIZED_KEY] = True
    if not mac_key:
        values[SIGNED_LATE_KEY] = True
    occurred_at = new_event.now.astimezone(UTC)
    return Event._make((id, VERSION, mac_key, occurred_at, *clean_texts, canonical_json(values)))


def drop_refused_detail(new_event: NewEvent) -> NewEvent:
    """Return the event without refused detail, after logging an error that names the keys but not
    the values.

    Raises: ValueError inside `raise_on_refused_detail` (tests).
    """
    refused = list_refused_detail_keys(new_event)
    if not refused:
        return new_event
    names = ", ".join(ascii(key)[:64] for key in refused)
    _report_refused_detail(f"{new_event.action}: not allowed in its detail: {names}.")
    detail = new_event.detail or {}
    return new_event._replace(
        detail={key: value for key, value in detail.items() if key not in refused}
    )


def list_refused_detail_keys(new_event: NewEvent) -> tuple[str, ...]:
    """Return the detail keys that the action does not declare, or whose value is not of the
    type of the key (`DETAIL_TYPES`).

    A key of the host project has no type: allowed are strings, booleans, integers between -2**53
    and 2**53, and lists of those. Floats have no canonical form.
    """
    if not new_event.detail:
        return ()
    allowed = _find_detail_keys(new_event.action) or frozenset()
    refused = []
    for key, value in new_event.detail.items():
        if key not in allowed or not _is_allowed_value(value, DETAIL_TYPES.get(key)):
            refused.append(key)
    return tuple(refused)


def compute_resource_pseudonym(resource: str, *, key: bytes) -> str:
    """Return the resource with a pseudonym in place of its id: 128 bits of HMAC-SHA256 in
    hexadecimal.

    resource: `Type/id`; without a type, all of it is the id. The type is part of the MAC input, so
    equal ids of different types have different pseudonyms. UNKEYED_RESOURCE_TYPES are returned
    unchanged.
    """
    if "/" in resource:
        kind, slash, id_ = resource.partition("/")
    else:
        kind = ""
        slash = ""
        id_ = resource

    if not id_ or (kind or id_) in UNKEYED_RESOURCE_TYPES:
        return resource
    # Canonical event bytes, for which the same key is used, begin with a brace, so the two uses
    # cannot collide.
    message = b"django_phi_oidc resource id\x00" + resource.encode("utf-8", "surrogatepass")
    return f"{kind}{slash}{hmac.digest(key, message, hashlib.sha256)[:16].hex()}"


def _is_clean(texts: Sequence[str]) -> bool:
    """Cheap test that no text needs sanitizing. False does not mean that one does."""
    joined = "".join(texts)
    is_short = len(joined) <= MAX_CHARACTERS or max(map(len, texts)) <= MAX_CHARACTERS
    return is_short and joined.isascii() and joined.isprintable()


def sanitize_text(text: str) -> str:
    """Remove control characters, line separators and lone surrogates, and truncate to 256
    characters.
    """
    if text.isascii() and text.isprintable():
        return text[:MAX_CHARACTERS]
    return "".join(char for char in text if unicodedata.category(char) not in _DROPPED_CATEGORIES)[
        :MAX_CHARACTERS
    ]


def canonical_bytes(event: Event) -> bytes:
    """Return the bytes that the MAC is over. Spec: RFC 8785."""
    return _serialize_fields(event).encode("utf-8")


def compute_mac(event: Event, key: bytes) -> bytes:
    """Return HMAC-SHA256 over the event's canonical bytes, 32 bytes. Spec: RFC 2104."""
    return create_mac_function(key)(canonical_bytes(event))


def _xor_bytes(data: bytes, mask: int) -> bytes:
    return bytes(byte ^ mask for byte in data)


@lru_cache(maxsize=64)
def create_mac_function(key: bytes) -> Callable[[bytes], bytes]:
    """Return a function that computes HMAC-SHA256 over canonical bytes, with the key schedule
    already computed.

    `hmac` takes twice as long, and a verification computes millions. Requires: a key of at most 64
    bytes.
    Spec: RFC 2104.
    """
    padded = key.ljust(hashlib.sha256().block_size, b"\0")
    inner = hashlib.sha256(_xor_bytes(padded, 0x36)).copy
    outer = hashlib.sha256(_xor_bytes(padded, 0x5C)).copy

    def compute(canonical: bytes) -> bytes:
        inner_hash = inner()
        outer_hash = outer()
        inner_hash.update(canonical)
        outer_hash.update(inner_hash.digest())
        return outer_hash.digest()

    return compute


def serialize_event(authenticated_event: AuthenticatedEvent) -> str:
    """Return the event as one line of canonical JSON, with its MAC as the hexadecimal member
    `mac`.
    """
    return _serialize_fields(
        authenticated_event.event, mac_member=f'"mac":"{authenticated_event.mac.hex()}",'
    )


def parse_event(text: str, *, allow_unsigned: bool = False) -> AuthenticatedEvent:
    """Parse the output of `serialize_event`. The MAC, or the proof, is NOT checked.

    allow_unsigned: accept an event that gets its MAC later, and has a proof until then.
    Raises: ValueError unless the text is, byte for byte, what `serialize_event` writes for an event
    of this version.
    """
    try:
        members = json.loads(text)
        mac = bytes.fromhex(members.pop("mac"))
        authenticated = AuthenticatedEvent(_parse_members(members), mac)
        is_exact = serialize_event(authenticated) == text
    except (*_PARSE_ERRORS, RecursionError) as error:
        raise ValueError("Not an event.") from error
    has_key = allow_unsigned or bool(authenticated.event.mac_key)
    if not (is_exact and has_key and len(mac) == hashlib.sha256().digest_size):
        raise ValueError("Not an event of this version.")
    return authenticated


def find_event(canonical: bytes) -> Event | None:
    """Return the event with these canonical bytes; None if they are not those of an event of this
    version.
    """
    with suppress(*_PARSE_ERRORS, RecursionError):
        event = _parse_members(json.loads(canonical))
        if canonical_bytes(event) == canonical:
            return event
    return None


def parse_detail(text: str) -> dict[str, Any]:
    """Return the members of a stored detail; none if it is no JSON object, which a writer to the
    table can insert.
    """
    try:
        detail = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if isinstance(detail, dict):
        return detail
    return {}


def is_valid_event(canonical: bytes) -> bool:
    """Whether these are the bytes of an event that the recorder could have built, of limited size.

    A valid MAC does not show it: a process with the MAC key and the right to INSERT can
    authenticate any bytes. What is sealed is valid, so that every reader of the log can rely on it:
    `occurred_at` is the time of the id, and a value of `detail` has the type of its key. A key that
    the action does not declare is valid: during an update, another process may have a newer
    version of this package.
    """
    if len(canonical) > MAX_EVENT_BYTES:
        return False
    event = find_event(canonical)
    return event is not None and could_be_recorded(event)


def is_signed_late(canonical: bytes) -> bool:
    """Whether these are the bytes of an event that got its MAC from another process than the one
    that wrote it: the keys were missing there.
    """
    if _SIGNED_LATE_BYTES not in canonical:
        # Nearly always: without parsing.
        return False
    event = find_event(canonical)
    return event is not None and SIGNED_LATE_KEY in parse_detail(event.detail)


def could_be_recorded(event: Event) -> bool:
    """Whether the event occurred at the time of its id, and its details have the types of their
    keys. See `is_valid_event`.
    """
    microseconds = (event.occurred_at - _EPOCH) // timedelta(microseconds=1)
    return has_time_of_id(event.id.bytes, microseconds) and _has_types_of_keys(
        json.loads(event.detail)
    )


def has_plain_columns(v: int, mac_key: str, texts: Sequence[str], detail: str) -> bool:
    """Cheap test, for the sealer, that the event of a row that `has_time_of_id` is valid. False
    does not mean that it is not.

    It has texts of printable ASCII and a short detail, as nearly all events. Arguments: as for
    `serialize_columns`.
    """
    is_version = type(v) is int and v == VERSION
    is_plain = is_version and _is_clean(texts) and len(detail) <= MAX_CHARACTERS
    return is_plain and _is_known(texts[0], texts[1], mac_key) and _is_canonical_detail(detail)


def has_time_of_id(id_: bytes, microseconds: int) -> bool:
    """Whether an event occurred at the time of its UUIDv7 (RFC 9562 5.7).

    id_: 16 bytes. microseconds: since 1970.
    """
    id_milliseconds = int.from_bytes(id_[:6], "big")
    return abs(microseconds - id_milliseconds * 1000) <= MAX_ID_TIME_DIFFERENCE_MICROSECONDS


def is_declaration(canonical: bytes) -> bool:
    """Whether this is an event of DECLARATION_ACTIONS, which only `append_declaration` may write.

    Requires: bytes of `serialize_columns`, whose first member is the action.
    """
    return canonical.startswith(_DECLARATION_PREFIXES)


def is_restore_event(canonical: bytes) -> bool:
    """Whether this is an `audit.restored` event, which opens an epoch of the log."""
    return canonical.startswith(_RESTORED_PREFIX)


def _parse_members(members: dict[str, Any]) -> Event:
    """Return the event with these members of its canonical form, of which the caller compares the
    exact text.

    Raises: ValueError, or one of the errors of a wrong type, unless `build_event` could have built
    it.
    """
    detail = members["detail"]
    event = Event(
        **{
            **members,
            "id": uuid.UUID(members["id"]),
            "occurred_at": datetime.fromisoformat(members["occurred_at"]),
            "detail": canonical_json(detail),
        }
    )
    is_clean = all(_is_sanitized(getattr(event, name)) for name in _TEXT_FIELDS)
    is_version = type(event.v) is int and event.v == VERSION
    is_known = is_version and event.outcome in OUTCOMES and _ACTION_PATTERN.fullmatch(event.action)
    if not (is_clean and is_known and _is_valid_detail(detail)):
        raise ValueError("Not an event of this version.")
    return event


def _has_types_of_keys(detail: Mapping[str, Any]) -> bool:
    return all(_is_allowed_value(value, DETAIL_TYPES.get(key)) for key, value in detail.items())


def _is_valid_detail(detail: Any) -> bool:
    if not isinstance(detail, dict):
        return False
    for key, value in detail.items():
        if not (key.isascii() and key.isidentifier()):
            return False
        if not _is_allowed_value(value, None) or _sanitize_value(value) != value:
            return False
    return True


def _is_sanitized(text: str) -> bool:
    return sanitize_text(text) == text


@lru_cache(maxsize=1024)
def _is_known(action: str, outcome: str, mac_key: str) -> bool:
    return (
        bool(_ACTION_PATTERN.fullmatch(action))
        and outcome in OUTCOMES
        and sanitize_text(mac_key) == mac_key
    )


@lru_cache(maxsize=1024)
def _is_canonical_detail(text: str) -> bool:
    """Few details differ: they name a claim, a rule or a number."""
    with suppress(ValueError, RecursionError):
        detail = json.loads(text)
        return (
            _is_valid_detail(detail)
            and canonical_json(detail) == text
            and _has_types_of_keys(detail)
        )
    return False


def is_withdrawal(action: str, detail: Mapping[str, Any] | None) -> bool:
    """Return whether the event ends or withdraws something, and so may wait in the outbox without a
    MAC.
    """
    keys = {*(detail or ())} - {SANITIZED_KEY, SIGNED_LATE_KEY}
    return action in WITHDRAWAL_ACTIONS or (
        action == Action.ROLE_CHANGED and keys <= ROLE_WITHDRAWAL_KEYS
    )


def raise_on_refused_detail() -> AbstractContextManager[None]:
    """Refuse a detail that is not allowed, in this process, for the length of the block: for
    tests.
    """
    return override_global(globals(), "_report_refused_detail", _raise_value_error)


def _raise_value_error(message: str) -> None:
    raise ValueError(message)


_report_refused_detail: Callable[[str], None] = logging.getLogger("phi_oidc.audit").error


def _find_detail_keys(action: str) -> frozenset[str] | None:
    """Return the keys of the action's detail; None for an unknown action."""
    keys = DETAIL_KEYS.get(action)
    if keys is None:
        return _registered_actions.get(action)
    return keys


def _validate_detail_keys(name: str, keys: Collection[str]) -> frozenset[str]:
    match = _ACTION_PATTERN.fullmatch(name)
    if match is None or len(name) > MAX_CHARACTERS:
        raise ValueError(f"{name!r} is not prefix.name of a-z, 0-9 and _.")
    if match[1] in RESERVED_PREFIXES:
        raise ValueError(f"{name}: the prefix {match[1]} is reserved.")
    # A bare string is iterable too, so reject it explicitly.
    if isinstance(keys, str) or not all(key.isascii() and key.isidentifier() for key in keys):
        raise ValueError(f"{name}: the detail keys must be a set of ASCII identifiers.")
    if taken := {*EVENT_FIELDS, "mac", SANITIZED_KEY, SIGNED_LATE_KEY}.intersection(keys):
        raise ValueError(f"{name}: reserved detail keys: {', '.join(sorted(taken))}.")
    return frozenset(keys)


def _serialize_fields(event: Event, *, mac_member: str = "") -> str:
    id_, v, mac_key, occurred_at, *texts, detail = event
    time = occurred_at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    return serialize_columns(
        str(id_), v, mac_key, time, texts, detail=detail, mac_member=mac_member
    )


def serialize_columns(
    id_: str,
    v: int,
    mac_key: str,
    time: str,
    texts: Sequence[str],
    *,
    detail: str,
    mac_member: str = "",
) -> str:
    """Return the canonical form of an event, or of a row. That of an altered row may not be JSON.

    id_: in lower case, with hyphens. time: `occurred_at` in UTC with microseconds, without an
    offset. texts: the fields from `action` to `request_id`, in the order of Event. mac_member: the
    additional member of `serialize_event`.
    Raises: TypeError if one of the texts or mac_key is not a str. Spec: RFC 8785.
    """
    joined = "".join(texts)
    if not joined.isprintable() or '"' in joined or "\\" in joined:
        texts = [encode_basestring(text)[1:-1] for text in texts]
    (
        action,
        outcome,
        actor,
        on_behalf_of,
        subject,
        provider,
        session,
        client_ip,
        purpose,
        resource,
        reason,
        request_id,
    ) = texts
    return (
        f'{{"action":"{action}","actor":"{actor}","client_ip":"{client_ip}","detail":{detail},"id":"{id_}",{mac_member}'
        f'"mac_key":{encode_basestring(mac_key)},"occurred_at":"{time}Z",'
        f'"on_behalf_of":"{on_behalf_of}","outcome":"{outcome}","provider":"{provider}",'
        f'"purpose":"{purpose}","reason":"{reason}","request_id":"{request_id}","resource":"{resource}",'
        f'"session":"{session}","subject":"{subject}","v":{v}}}'
    )


def _is_allowed_value(value: Any, detail_type: DetailType | None) -> bool:
    """Whether the value is of that type; None: of any type that has a canonical form."""
    match detail_type:
        case DetailType.TEXT:
            return isinstance(value, str)
        case DetailType.INTEGER:
            return _is_integer(value)
        case DetailType.BOOLEAN:
            return isinstance(value, bool)
        case DetailType.TEXTS:
            return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        case DetailType.INTEGERS:
            return isinstance(value, list | tuple) and all(map(_is_integer, value))
    if isinstance(value, list | tuple):
        return all(map(_is_scalar, value))
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool) or _is_integer(value)


def _is_integer(value: Any) -> bool:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and abs(value) < MAX_INTEGER


def _sanitize_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_sanitize_value(item) for item in value[:MAX_ITEMS]]
    if isinstance(value, str):
        return sanitize_text(value)
    return value
