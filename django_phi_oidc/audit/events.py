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
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Literal, NamedTuple

from .vocabulary import DETAIL_KEYS, PLAIN_RESOURCES, RESERVED_PREFIXES
from .vocabulary import Action as Action  # noqa: PLC0414 -- whoever makes an event names its action

VERSION = 1
MAX_CHARACTERS = 256
MAX_ITEMS = 64
MAX_INTEGER = 2**53
SANITIZED = "sanitized"
"""The detail key that is true when a string or list of this event was cut, or lost characters that can't be shown."""

Outcome = Literal["success", "failure", "error"]
OUTCOMES: tuple[Outcome, ...] = ("success", "failure", "error")
# Controls, lone surrogates, and the two separators that end a line for some readers of logs.
_DROPPED = frozenset({"Cc", "Cs", "Zl", "Zp"})
_ACTION = re.compile(r"([a-z0-9_]+)\.[a-z0-9_]+")
_registered: dict[str, frozenset[str]] = {}
_disclosing: set[str] = set()


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


class Act(NamedTuple):
    """What is to be written, before it has an id and a MAC."""

    action: str
    """An Action, or one that the host project registered."""
    origin: Origin
    """Who acted, and from where."""
    now: datetime
    """Aware: when it was done."""
    outcome: Outcome = "success"
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
class Finished:
    """An event with the MAC over its canonical bytes."""

    event: Event
    mac: bytes = field(repr=False)


FIELDS = tuple(sorted(Event._fields))
_TEXTS = tuple(name for name in FIELDS if name not in {"v", "id", "occurred_at", "detail"})


def register_actions(actions: Mapping[str, Collection[str]], *, disclosures: Collection[str] = ()) -> None:
    """Let this process write actions of the host project's own: each name with the keys that its `detail` may have.

    A name is `prefix.name`, of a-z, 0-9 and _, with a prefix that is not ours; a key is an ASCII identifier that no
    field of an event bears. disclosures: those of them by which somebody sees what is of a person: the person may ask
    for them. All are registered, or none; again with the same keys changes nothing.
    Raises: ValueError, for one that was registered with other keys, too.
    """
    new = {name: _checked_keys(name, keys) for name, keys in actions.items()}
    for name, keys in new.items():
        if _registered.get(name, keys) != keys:
            raise ValueError(f"{name} is registered with other detail keys.")
    if isinstance(disclosures, str) or not new.keys() >= set(disclosures):
        raise ValueError("disclosures is a list of actions that are registered with it.")
    _registered.update(new)
    _disclosing.update(disclosures)


def registered_disclosures() -> frozenset[str]:
    """Return the host project's actions by which somebody sees what is of a person."""
    return frozenset(_disclosing)


def build_event(act: Act, *, id: uuid.UUID, mac_key: str) -> Event:  # noqa: A002 -- the field's name
    """Return the event of act, its strings cleaned and cut, and flagged where that changed one.

    What is not allowed in its detail is dropped as `without_refused` tells.
    Raises: ValueError for an action or outcome out of the vocabulary, and a naive time.
    """
    if _keys_of(act.action) is None or act.outcome not in OUTCOMES:
        raise ValueError("The action or the outcome is not in the vocabulary.")
    if act.now.utcoffset() is None:
        raise ValueError("The time of an event must be aware.")
    act = without_refused(act)
    detail, origin = act.detail or {}, act.origin
    # A member of an enumeration is a string that the database's driver takes ten times as long for.
    given = (
        *(str(act.action), act.outcome, origin.actor, act.subject, act.provider, origin.session, origin.client_ip),
        *(act.purpose, act.resource, act.reason, origin.request_id),
    )
    texts = given if _is_clean(given) else tuple(map(clean, given))
    kept = {key: _cleaned(value) for key, value in detail.items()}
    if texts != given or list(kept.values()) != list(map(_plain, detail.values())):
        kept[SANITIZED] = True
    action, outcome, actor, subject, provider, session, client_ip, purpose, resource, reason, request_id = texts
    return Event(
        *(id, VERSION, mac_key, act.now.astimezone(UTC), action, outcome, actor, subject, provider, session, client_ip),
        *(purpose, resource, reason, request_id, _canonical_json(kept)),
    )


def without_refused(act: Act) -> Act:
    """Return act without what is not allowed in its detail, having told the log of it, by its key alone.

    In tests, `strictly` makes it an error. Raises: ValueError, then.
    """
    refused = refused_detail(act)
    if not refused:
        return act
    _tell_refused(f"{act.action}: not allowed in its detail: {', '.join(ascii(key)[:64] for key in refused)}.")
    return act._replace(detail={key: value for key, value in (act.detail or {}).items() if key not in refused})


def refused_detail(act: Act) -> tuple[str, ...]:
    """Return the keys of act's detail that are not allowed for its action or whose value is not of an allowed type.

    Allowed are strings, booleans, integers below 2**53 either way, and lists of those; a float has no canonical form.
    """
    if not act.detail:
        return ()
    allowed = _keys_of(act.action) or frozenset()
    return tuple([key for key, value in act.detail.items() if key not in allowed or not _is_allowed(value)])


def keyed_id(resource: str, *, key: bytes) -> str:
    """Return resource with a pseudonym in place of its id: 128 bits of HMAC-SHA256, as hexadecimal digits.

    resource: `Type/id`; where there is no type, all of it is taken for the id. The same key makes the same pseudonym of
    the same resource, and others of the same id of another type. PLAIN_RESOURCES stay as they are.
    """
    kind, slash, id_ = resource.partition("/") if "/" in resource else ("", "", resource)
    if not id_ or (kind or id_) in PLAIN_RESOURCES:
        return resource
    # An event's canonical bytes, which the same key is used for, begin with a brace.
    message = b"django_phi_oidc resource id\x00" + resource.encode("utf-8", "surrogatepass")
    return f"{kind}{slash}{hmac.digest(key, message, hashlib.sha256)[:16].hex()}"


def _is_clean(texts: tuple[str, ...]) -> bool:
    """Say whether nothing is to be done to any of texts, as far as that can be told cheaply."""
    together = "".join(texts)
    is_short = len(together) <= MAX_CHARACTERS or max(map(len, texts)) <= MAX_CHARACTERS
    return is_short and together.isascii() and together.isprintable()


def clean(text: str) -> str:
    """Return text without control characters, line separators and lone surrogates, 256 characters at most."""
    if text.isascii() and text.isprintable():
        return text[:MAX_CHARACTERS]
    return "".join(char for char in text if unicodedata.category(char) not in _DROPPED)[:MAX_CHARACTERS]


def canonical_bytes(event: Event) -> bytes:
    """Return the bytes that the MAC is over. Spec: RFC 8785."""
    return _text(event).encode("utf-8")


def compute_mac(event: Event, key: bytes) -> bytes:
    """Return HMAC-SHA256 over the event's canonical bytes, 32 bytes. Spec: RFC 2104."""
    return mac_under(key)(canonical_bytes(event))


@lru_cache(maxsize=64)
def mac_under(key: bytes) -> Callable[[bytes], bytes]:
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


def event_text(finished: Finished) -> str:
    """Return the event as one line of canonical JSON, with its MAC as the hexadecimal member `mac`."""
    return _text(finished.event, mac=f'"mac":"{finished.mac.hex()}",')


def parse_event(text: str) -> Finished:
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
        is_exact = event_text(Finished(event, mac)) == text
        is_clean = all(clean(getattr(event, name)) == getattr(event, name) for name in _TEXTS)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("Not an event.") from error
    if not (is_flat and is_exact and is_clean) or event.v != VERSION or len(mac) != hashlib.sha256().digest_size:
        raise ValueError("Not an event of this version.")
    return Finished(event, mac)


@contextmanager
def strictly() -> Iterator[None]:
    """Refuse a detail that is not allowed, in this process, for the length of the block: for tests."""
    global _tell_refused  # noqa: PLW0603 -- the seam is this one variable
    before, _tell_refused = _tell_refused, _raise
    try:
        yield
    finally:
        _tell_refused = before


def _raise(message: str) -> None:
    raise ValueError(message)


_tell_refused: Callable[[str], None] = logging.getLogger("phi_oidc.audit").error


def _keys_of(action: str) -> frozenset[str] | None:
    keys = DETAIL_KEYS.get(action)
    return _registered.get(action) if keys is None else keys


def _checked_keys(name: str, keys: Collection[str]) -> frozenset[str]:
    match = _ACTION.fullmatch(name)
    if match is None or len(name) > MAX_CHARACTERS:
        raise ValueError(f"{name!r} is not prefix.name of a-z, 0-9 and _.")
    if match[1] in RESERVED_PREFIXES:
        raise ValueError(f"{name}: the prefix {match[1]} is ours.")
    # A text is a collection of its letters.
    if isinstance(keys, str) or not all(key.isascii() and key.isidentifier() for key in keys):
        raise ValueError(f"{name}: the detail keys are a set of ASCII identifiers.")
    if taken := {*FIELDS, "mac", SANITIZED}.intersection(keys):
        raise ValueError(f"{name}: no detail key may be called {', '.join(sorted(taken))}.")
    return frozenset(keys)


def _text(event: Event, *, mac: str = "") -> str:
    """Return the event's members in their order; mac: one more."""
    id_, v, mac_key, occurred_at, *texts, detail = event
    together = "".join(texts)
    if not together.isprintable() or '"' in together or "\\" in together:
        texts = [encode_basestring(text)[1:-1] for text in texts]
    action, outcome, actor, subject, provider, session, client_ip, purpose, resource, reason, request_id = texts
    at = occurred_at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    return (
        f'{{"action":"{action}","actor":"{actor}","client_ip":"{client_ip}","detail":{detail},"id":"{id_}",{mac}'
        f'"mac_key":{encode_basestring(mac_key)},"occurred_at":"{at}Z","outcome":"{outcome}","provider":"{provider}",'
        f'"purpose":"{purpose}","reason":"{reason}","request_id":"{request_id}","resource":"{resource}",'
        f'"session":"{session}","subject":"{subject}","v":{v}}}'
    )


def _canonical_json(detail: Mapping[str, Any]) -> str:
    # RFC 8785 sorts by UTF-16 units and spells floats its own way: our names are ASCII, and there are no floats.
    members = [
        f"{encode_basestring(key)}:{encode_basestring(value) if isinstance(value, str) else _json(value)}"
        for key, value in sorted(detail.items())
    ]
    return f"{{{','.join(members)}}}"


_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _is_allowed(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_scalar, value))
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < MAX_INTEGER)


def _cleaned(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value[:MAX_ITEMS]]
    return clean(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
