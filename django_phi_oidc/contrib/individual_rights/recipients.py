"""Who saw the data of a person: the name and the roles at that time, for the accounting of
disclosures.

Spec: 45 CFR 164.528(b)(2)(ii).
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import router, transaction

from ..._internal import randomness
from ..._internal.inserts import insert
from ..._internal.sql import savepoint
from ...audit.operators import find_stated_account_pk
from ...errors import KeyMissing, Undecryptable
from . import conf
from .models import DisclosureRecipient

logger = logging.getLogger("django_phi_oidc.access")
RECHECK_SECONDS = 60.0
"""How long this process does not read the roles of an account again. A new name is noticed at
once.
"""
_MAX_REMEMBERED = 10_000
_remembered: dict[tuple[str, str], tuple[str, float]] = {}
"""By account and resource: the name, and the monotonic time until which no query is needed. An
entry without a resource says that the name is stored; one with a resource says that nothing is
stored, because the resource is the account's.
"""
_reported_errors: set[str] = set()
"""The exceptions of the project's function that this process has logged: the function may fail at
each request.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """An account as it was at the time of a disclosure."""

    name: str = ""
    roles: tuple[str, ...] = ()
    """The names of its groups."""


UNKNOWN_RECIPIENT = Recipient()


def remember_recipient(user: Any, *, now: datetime, resource: str = "") -> None:
    """Store the name and the roles of user, unless the last stored ones are the same.

    Call it before the event of a disclosure to user is recorded. resource: what is disclosed, if it
    is a `Type/id`; nothing is stored for persons who look at resources of their own. It takes two
    SELECTs, and an INSERT after a change, at most once in RECHECK_SECONDS for each account and
    process. Without encryption keys nothing is stored, and the disclosure is not refused for that.
    """
    account = str(user.pk)
    name = _get_name(user)
    if _is_remembered((account, ""), name) or _is_remembered((account, resource), name):
        return
    if resource and is_own_resource(user, resource):
        _remember((account, resource), name)
        return
    identity = json.dumps({"name": name, "roles": _list_roles(user)}, ensure_ascii=False)
    try:
        latest = (
            DisclosureRecipient.objects.filter(account=account).order_by("recorded_at", "id").last()
        )
        if latest is None or _find_identity(latest) != identity:
            row = DisclosureRecipient(
                id=randomness.uuid7(now), account=account, recorded_at=now, identity=identity
            )
            # Not save(), after whose errors a transaction of the caller cannot be committed.
            insert([row], using=router.db_for_write(DisclosureRecipient))
    except KeyMissing as error:
        logger.error("The name of a recipient was not stored: %s", error)  # noqa: TRY400 -- the traceback may contain credentials of a key service
        return
    # A rollback of the caller's transaction removes the row.
    transaction.on_commit(lambda: _remember((account, ""), name))


def is_own_resource(user: Any, resource: str) -> bool:
    """Return whether resource is about user, by PATIENT_RESOURCES. False if the project's function
    fails.
    """
    get_resources = conf.patient_resources()
    if get_resources is None:
        return False
    try:
        with savepoint():
            return resource in get_resources(user)
    except Exception as error:  # noqa: BLE001 -- the project's function must not prevent a decision and its event
        name = type(error).__name__
        if name not in _reported_errors:
            _reported_errors.add(name)
            logger.error("PATIENT_RESOURCES: the function failed: %s.", name)  # noqa: TRY400 -- the message may name a person
        return False


def find_recipients(
    looks: Iterable[tuple[str, datetime]],
) -> Mapping[tuple[str, datetime], Recipient]:
    """Return the recipient of each look (an `AuditEvent.actor` and a time), as it was at that time,
    by one SELECT.

    That is the last row before the look; or the first one after it, if the clocks of two servers
    differ. Accounts without a row are missing. Raises: KeyMissing.
    """
    wanted = set(looks)
    rows: dict[str, list[DisclosureRecipient]] = defaultdict(list)
    accounts = {account for account, _ in wanted} - {""}
    found = DisclosureRecipient.objects.filter(account__in=accounts).order_by("recorded_at", "id")
    for row in found:
        rows[row.account].append(row)
    chosen = {}
    for account, moment in wanted:
        if account in rows:
            chosen[(account, moment)] = _choose_row(rows[account], moment)
    recipients = {row.pk: _parse_identity(_find_identity(row)) for row in chosen.values()}
    return {look: recipients[row.pk] for look, row in chosen.items()}


def _choose_row(rows: Sequence[DisclosureRecipient], moment: datetime) -> DisclosureRecipient:
    """Return the last row before the moment, or the first row. rows: the oldest first, not
    empty.
    """
    for row in reversed(rows):
        if row.recorded_at <= moment:
            return row
    return rows[0]


def list_stored_names(user: Any) -> list[tuple[datetime, Recipient]]:
    """Return the stored recipients of user with their times, the oldest first. Raises:
    KeyMissing.
    """
    rows = DisclosureRecipient.objects.filter(account=str(user.pk)).order_by("recorded_at", "id")
    stored_names = []
    for row in rows:
        stored_names.append((row.recorded_at, _parse_identity(_find_identity(row))))
    return stored_names


def find_current_recipients(accounts: Iterable[str]) -> dict[str, Recipient]:
    """Return these actors of events with the names that their accounts have today; deleted ones are
    missing.

    The account of a command is the one that its operator named.
    """
    model = get_user_model()
    keys = {}
    for account in accounts:
        try:
            key = model._meta.pk.to_python(find_stated_account_pk(account) or account)
            model._meta.pk.run_validators(key)
        except ValidationError:
            continue
        keys[account] = key

    if keys:
        users = model._default_manager.in_bulk(set(keys.values()))
    else:
        users = {}

    current_recipients = {}
    for account, key in keys.items():
        if key in users:
            current_recipients[account] = Recipient(name=_get_name(users[key]))
    return current_recipients


def forget_remembered() -> None:
    """Read the database again at the next disclosure: for tests."""
    _remembered.clear()
    _reported_errors.clear()


def _is_remembered(key: tuple[str, str], name: str) -> bool:
    known_name, until = _remembered.get(key, ("", 0.0))
    return known_name == name and time.monotonic() < until


def _remember(key: tuple[str, str], name: str) -> None:
    if len(_remembered) >= _MAX_REMEMBERED:
        _remembered.clear()
    _remembered[key] = name, time.monotonic() + RECHECK_SECONDS


def _get_name(user: Any) -> str:
    """Return the full name; a custom user model may have none."""
    full_name = getattr(user, "get_full_name", None)
    if full_name:
        return str(full_name()).strip()
    return ""


def _list_roles(user: Any) -> list[str]:
    # A custom user model may have no groups.
    if hasattr(user, "groups"):
        return sorted(user.groups.values_list("name", flat=True))
    return []


def _find_identity(row: DisclosureRecipient) -> str | None:
    """Return the stored JSON text; None if no key decrypts it. Raises: KeyMissing."""
    field: Any = DisclosureRecipient._meta.get_field("identity")
    try:
        return str(field.decrypt(row))
    except Undecryptable:
        return None


def _parse_identity(identity: str | None) -> Recipient:
    if identity is None:
        return UNKNOWN_RECIPIENT
    members = json.loads(identity)
    return Recipient(name=members["name"], roles=tuple(members["roles"]))
