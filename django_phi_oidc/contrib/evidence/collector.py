"""Collect the evidence of this process: its settings and checks, the audit log, and the installed
packages.
"""

import json
import logging
import platform
from datetime import datetime
from pathlib import Path
from typing import Any

import django
from django.core.checks import CheckMessage, run_checks
from django.db import DEFAULT_DB_ALIAS, connections

from ... import __version__
from ...audit.configuration import read_configuration, read_effective_settings
from ...audit.effective_options import describe_value
from ...audit.events import parse_detail
from ...audit.log.signing_keys import get_checkpoint_origin, get_public_keys
from ...audit.merkle.checkpoint import NoteSigner, verify_checkpoint
from ...audit.models import AuditCheckpoint
from ...audit.router import AUDIT_ALIAS
from ...audit.search import find_last_verification
from .oscal import build_oscal
from .sbom import build_sbom

_CONTROLS = Path(__file__).with_name("controls.json")


def collect_evidence(*, key: NoteSigner, now: datetime) -> dict[str, Any]:
    """Return the content of an evidence pack: JSON values, without secrets and without data of
    persons.

    key: that of the audit log. Raises: KeyMissing; AuditUnavailable; CheckpointInvalid if the
    newest checkpoint of the log is not signed by a known key, because the pack would confirm it.
    """
    checkpoint = AuditCheckpoint.objects.last()
    if checkpoint is None:
        note = None
        log = get_checkpoint_origin(1)
    else:
        note = checkpoint.note
        log = get_checkpoint_origin(checkpoint.epoch)
        verify_checkpoint(note, get_public_keys(key), expected_origin=log)
    evidence: dict[str, Any] = {
        "log": log,
        "created_at": now.isoformat(),
        "versions": _read_versions(),
        "configuration": _read_configuration(),
        "controls": json.loads(_CONTROLS.read_text("utf-8")),
        "checkpoint": note,
        "last_verification": _read_last_verification(),
        "sbom": build_sbom(portal=log, now=now),
    }
    return evidence | {"oscal": build_oscal(evidence)}


def _read_versions() -> dict[str, Any]:
    databases = []
    for alias in (DEFAULT_DB_ALIAS, AUDIT_ALIAS):
        connection = connections[alias]
        version = ".".join(map(str, connection.get_database_version()))
        databases.append({"alias": alias, "name": connection.display_name, "version": version})
    return {
        "django_phi_oidc": __version__,
        "python": platform.python_version(),
        "django": django.get_version(),
        "databases": databases,
    }


def _read_configuration() -> dict[str, Any]:
    configuration = read_configuration()
    messages = sorted(
        run_checks(include_deployment_checks=True),
        key=lambda message: (str(message.id), str(message.msg)),
    )
    # A list: the names in a path are the project's, and RFC 8785 would sort some of them in another
    # order.
    settings = []
    for name, value in read_effective_settings().items():
        settings.append({"name": name, "value": describe_value(value)})
    return {
        "digest": configuration.digest,
        "settings": settings,
        "checks": [_describe_check(message) for message in messages],
        "silenced": list(configuration.silenced),
    }


def _describe_check(message: CheckMessage) -> dict[str, Any]:
    return {
        "id": str(message.id),
        "level": logging.getLevelName(message.level).lower(),
        "text": str(message.msg),
        "hint": str(message.hint or ""),
        "silenced": message.is_silenced(),
    }


def _read_last_verification() -> dict[str, Any] | None:
    event = find_last_verification()
    if event is None:
        return None
    detail = parse_detail(event.detail)
    return {
        "event_id": str(event.id),
        "occurred_at": event.occurred_at.isoformat(),
        "outcome": event.outcome,
        "tree_size": detail.get("tree_size"),
        "events": detail.get("events"),
        "findings": detail.get("findings"),
        "kinds": detail.get("kinds"),
    }
