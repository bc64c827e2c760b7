"""What a provider says of itself, beside what it said the last time."""

import hashlib
import json
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.db import transaction

from ..config.providers import ProviderDeclaration
from ..oidc.jose import parse_json_object
from ..oidc.metadata import build_jwks_request, build_metadata_request, process_jwks_response, process_metadata_response
from ..oidc.transport import Transport
from .alerts import AlertCandidate, raise_alert
from .models import AnomalyMemory
from .rules import Severity

TIMEOUT_SECONDS = 10.0
"""For each of the two answers."""
_RETENTION_PERIOD = timedelta(days=366)
METADATA_CHANGED, KEYS_CHANGED = "provider_metadata_changed", "provider_keys_changed"
_SEVERITIES = {METADATA_CHANGED: Severity.WARNING, KEYS_CHANGED: Severity.INFO}


def check_provider_drift(declaration: ProviderDeclaration, *, transport: Transport, now: datetime) -> list[str]:
    """Return the kinds of the alerts raised: for metadata, and for keys, that are not what they were the last time.

    The first time tells nothing. What the provider answers is asked for anew, and judged as a sign-in judges it.
    Requires: no transaction is open. Raises: TransportError, MetadataError.
    """
    answer = transport.send(build_metadata_request(issuer=declaration.issuer), timeout_seconds=TIMEOUT_SECONDS)
    metadata = process_metadata_response(answer, declaration=declaration)
    members = json.dumps(parse_json_object(answer.body), sort_keys=True).encode()
    keys = process_jwks_response(transport.send(build_jwks_request(metadata), timeout_seconds=TIMEOUT_SECONDS)).keys
    spelled = sorted(key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys)
    found = {METADATA_CHANGED: members, KEYS_CHANGED: b"".join(spelled)}
    return [kind for kind, said in found.items() if _has_changed(kind, declaration.name, said, now=now)]


def _has_changed(kind: str, provider: str, content: bytes, *, now: datetime) -> bool:
    state = hashlib.sha256(content).hexdigest()
    with transaction.atomic(durable=True):
        memory, is_new = AnomalyMemory.objects.select_for_update().get_or_create(
            kind=kind, key=provider, defaults={"state": state, "expires_at": now + _RETENTION_PERIOD}
        )
        is_changed = not is_new and memory.state != state
        AnomalyMemory.objects.filter(pk=memory.pk).update(state=state, expires_at=now + _RETENTION_PERIOD)
        if is_changed:
            raise_alert(
                AlertCandidate(
                    kind=kind, key=provider, severity=_SEVERITIES[kind], count=1, first_seen=now, last_seen=now
                ),
                now=now,
            )
    return is_changed
