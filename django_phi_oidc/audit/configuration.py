"""The configuration in effect, and the event `configuration.changed` when it differs from the
previous one.

A process records its own configuration under the name of a component: all workers are one
component, and a deployment may record its web processes as another. During a rolling deployment,
processes with different configurations record by turns. These turns write no events. An event is
written for a configuration that no process of the component has had in the last ACTIVE_PERIOD, and
for an older one that is still recorded when the newest was not seen for as long.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.checks import Tags, run_checks
from django.db import transaction

from .. import __version__
from ..config.sections import get_group_members
from ..crypto import keyring
from ..crypto.conf import get_key_source
from ..options import get_declared
from ..project_settings import KEY_RINGS, KEY_VARIABLES
from .effective_options import describe_value, iter_effective_options
from .events import MAX_ITEMS, Action, NewEvent
from .models import RecordedConfiguration
from .outbox import enqueue_many
from .request_context import current_origin

WORKER_COMPONENT = "worker"
ACTIVE_PERIOD = timedelta(hours=1)
"""As long as many runs of the task, because each run takes place in only one of the workers."""
DJANGO_SETTINGS = (
    "AUTHENTICATION_BACKENDS",
    "DATABASE_ROUTERS",
    "DEBUG",
    "MIDDLEWARE",
    "SESSION_ENGINE",
)
PROCESS_WARNINGS = frozenset({"django_phi_oidc.W019"})
"""Left out, because they depend on the process: only the sealer has the signing key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveConfiguration:
    """What an auditor compares: no secrets, and no values that the audit log would keep."""

    options: Mapping[str, str]
    """Path of each option → the first 64 bits of the SHA-256 of its value, hexadecimal."""
    warnings: tuple[str, ...]
    """The ids of the security checks that report something, with those of `--deploy`, unless they
    are silenced.
    """
    silenced: tuple[str, ...]
    """SILENCED_SYSTEM_CHECKS."""

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal."""
        return _hash(json.dumps([dict(self.options), self.warnings, self.silenced], sort_keys=True))


def read_effective_settings() -> dict[str, Any]:
    """Return the settings that are compared, by path, without secrets. Raises: KeyMissing."""
    values = dict(iter_effective_options(get_declared()))
    for ring in _list_key_rings():
        values[f"KEYS.{ring}"] = [key.id for key in keyring.get_keys(ring)]
    for name in ("audit_public", *get_group_members("KEYS")):
        values[f"KEYS.{name}"] = get_key_source(name)
    for name in DJANGO_SETTINGS:
        values[name] = getattr(settings, name)
    values["version"] = __version__
    return values


def read_configuration() -> EffectiveConfiguration:
    """Return the configuration of this process. Raises: KeyMissing, because ids of keys are part of
    it.
    """
    messages = run_checks(tags=[Tags.security], include_deployment_checks=True)
    ids = set()
    for message in messages:
        if message.id and not message.is_silenced():
            ids.add(str(message.id))
    options = {}
    for path, value in read_effective_settings().items():
        options[path] = _hash(describe_value(value))[:16]
    return EffectiveConfiguration(
        options=options,
        warnings=tuple(sorted(ids - PROCESS_WARNINGS)),
        silenced=tuple(sorted(settings.SILENCED_SYSTEM_CHECKS)),
    )


def record_configuration(component: str, *, now: datetime) -> EffectiveConfiguration:
    """Record the configuration of this process, with an event if it has changed, and return it.

    Of concurrent processes with the same configuration, one writes the event. Raises: KeyMissing,
    DatabaseError.
    """
    configuration = read_configuration()
    with transaction.atomic(durable=True):
        records = RecordedConfiguration.objects.filter(component=component)
        own, is_new = records.get_or_create(
            component=component,
            digest=configuration.digest,
            defaults={"content": json.dumps(_serialize(configuration)), "seen_at": now},
        )
        rows = {row.pk: row for row in records.select_for_update().defer("content").order_by("pk")}
        own = rows[own.pk]
        newest = max(rows.values(), key=lambda row: (row.number, row.pk))
        is_change = is_new or (
            own != newest and not (_is_active(own, now=now) and _is_active(newest, now=now))
        )
        own.seen_at = now
        if is_change:
            own.number = newest.number + 1
            events = []
            for detail in _compare(configuration, None if own == newest else newest):
                event = NewEvent(
                    action=Action.CONFIGURATION_CHANGED,
                    origin=current_origin(),
                    now=now,
                    resource=f"Configuration/{component}",
                    detail=detail,
                )
                events.append(event)
            enqueue_many(events)
        own.save(update_fields=["seen_at", "number"])
    return configuration


def _list_key_rings() -> list[str]:
    key_rings = []
    for ring in KEY_VARIABLES:
        if ring in KEY_RINGS or get_key_source(ring):
            key_rings.append(ring)
    return key_rings


def _is_active(row: RecordedConfiguration, *, now: datetime) -> bool:
    return abs(now - row.seen_at) < ACTIVE_PERIOD


def _serialize(configuration: EffectiveConfiguration) -> dict[str, Any]:
    return {"options": dict(configuration.options), "warnings": configuration.warnings}


def _compare(
    configuration: EffectiveConfiguration, previous: RecordedConfiguration | None
) -> Iterator[dict[str, Any]]:
    """Yield the detail of each event: there are several if a list has more than MAX_ITEMS.

    previous: None for the first one, which lists no option.
    """
    before: Any
    if previous:
        before = json.loads(previous.content)
    else:
        before = {"options": configuration.options, "warnings": []}

    options = before["options"].items() ^ configuration.options.items()
    warnings = {*configuration.warnings}
    lists: dict[str, list[str]] = {
        "options": sorted({path for path, _ in options}),
        "warnings_added": sorted(warnings.difference(before["warnings"])),
        "warnings_removed": sorted({*before["warnings"]} - warnings),
        "silenced": list(configuration.silenced),
    }
    digests = {"digest": configuration.digest, "previous": previous.digest if previous else ""}
    for start in range(0, max(1, *map(len, lists.values())), MAX_ITEMS):
        detail: dict[str, Any] = dict(digests)
        for name, items in lists.items():
            detail[name] = items[start : start + MAX_ITEMS]
        yield detail


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
