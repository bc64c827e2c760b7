"""Compare the metadata and keys of a provider with those of the last check."""

import hashlib
import json
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.db import transaction

from ...config.providers import ProviderDeclaration
from ...errors import Code, MetadataError
from ...http.transport import Transport
from ...oidc.jose import parse_json_object
from ...oidc.metadata import build_jwks_request, process_jwks_response
from ...provider.metadata_documents import fetch_metadata
from .alerts import AlertCandidate, raise_alert
from .models import AnomalyMemory
from .severity import Severity

TIMEOUT_SECONDS = 10.0
"""For each of the two responses."""
_RETENTION_PERIOD = timedelta(days=366)
METADATA_CHANGED = "provider_metadata_changed"
KEYS_CHANGED = "provider_keys_changed"
_SEVERITIES = {METADATA_CHANGED: Severity.WARNING, KEYS_CHANGED: Severity.INFO}


def check_provider_drift(
    declaration: ProviderDeclaration, *, transport: Transport, now: datetime
) -> list[str]:
    """Raise an alert if the metadata or the keys differ from the last check; return the kinds of
    the alerts.

    The first check raises none. The responses are requested anew and validated as for a sign-in.
    Requires: no transaction is open. Raises: TransportError, MetadataError.
    """
    documents = fetch_metadata(declaration, transport=transport, timeout_seconds=TIMEOUT_SECONDS)
    metadata, response, oauth_members = documents
    if oauth_members is None:
        raise MetadataError(Code.METADATA_INVALID)
    members = json.dumps(
        {**oauth_members, **parse_json_object(response.body)}, sort_keys=True
    ).encode()
    keys = process_jwks_response(
        transport.send(build_jwks_request(metadata), timeout_seconds=TIMEOUT_SECONDS)
    ).keys
    encoded_keys = sorted(
        key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys
    )
    contents = {METADATA_CHANGED: members, KEYS_CHANGED: b"".join(encoded_keys)}
    provider_drift = []
    for kind, content in contents.items():
        if _has_changed(kind, declaration.name, content, now=now):
            provider_drift.append(kind)
    return provider_drift


def _has_changed(kind: str, provider: str, content: bytes, *, now: datetime) -> bool:
    state = hashlib.sha256(content).hexdigest()
    with transaction.atomic(durable=True):
        memory, is_new = AnomalyMemory.objects.select_for_update().get_or_create(
            kind=kind,
            key=provider,
            defaults={"state": state, "expires_at": now + _RETENTION_PERIOD},
        )
        is_changed = not is_new and memory.state != state
        AnomalyMemory.objects.filter(pk=memory.pk).update(
            state=state, expires_at=now + _RETENTION_PERIOD
        )
        if is_changed:
            raise_alert(
                AlertCandidate(
                    kind=kind,
                    key=provider,
                    severity=_SEVERITIES[kind],
                    first_seen=now,
                    last_seen=now,
                ),
                now=now,
            )
    return is_changed
