"""An audit log for tests: signing keys, recorded events, and checkpoints."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.audit.log.sequencer import AppendResult, append_to_log
from django_phi_oidc.audit.recorder import record_many
from django_phi_oidc.audit.storage import authenticate_event, insert_events

KEY = Ed25519PrivateKey.from_private_bytes(b"a signing key, for tests only...")
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"another signing key, for tests..")
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
NOW = datetime(2026, 11, 24, 16, 5, 9, 123456, tzinfo=UTC)


def events(count: int, *, at: datetime = NOW, **fields: Any) -> list[uuid.UUID]:
    """Record events, a millisecond apart, and return their ids. fields: of NewEvent."""
    origin = Origin(actor="7", session="a-session", client_ip="198.51.100.1", request_id="a-request")
    new_events = [
        NewEvent(
            **{
                "action": Action.CLAIM_REVEALED,
                "origin": origin,
                "now": at + timedelta(milliseconds=number),
                "subject": f"subject {number % 3}",
                "purpose": "TREAT",
                "detail": {"claim": "birthdate"},
                **fields,
            }
        )
        for number in range(count)
    ]
    return list(record_many(new_events))


def sealed(count: int, *, at: datetime = NOW, **fields: Any) -> list[uuid.UUID]:
    """Record events, seal everything that is not sealed, and return their ids."""
    ids = events(count, at=at, **fields)
    seal_now(at=at + timedelta(seconds=1))
    return ids


def forge_declaration(action: str, detail: dict[str, Any], *, at: datetime = NOW) -> uuid.UUID:
    """Insert a declaration with a valid MAC, as an attacker with the MAC key can, and return its id."""
    new_event = NewEvent(action, Origin(), at, detail=detail)
    forged = authenticate_event(new_event, allow_declaration=True)
    insert_events([forged])
    return forged.event.id


def seal_now(*, at: datetime = NOW, **options: Any) -> AppendResult:
    """Append to the log with the key of the tests."""
    return append_to_log(key=KEY, now=at, **options)
