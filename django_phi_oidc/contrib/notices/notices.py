"""Mails to a person about changes of the account, unusual sign-ins and suspicious attempts.

A notice is written in the transaction of the change, and sent by the periodic task, at least once.
A mail server that is unavailable delays it, and blocks no sign-in. It contains no name, no claim
and no address of a client.
Spec: ASVS 5.0 6.3.5, 6.3.7.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from copy import copy
from datetime import UTC, datetime, timedelta
from smtplib import SMTPRecipientsRefused, SMTPResponseException
from typing import Any
from uuid import UUID, uuid5

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email
from django.db import DatabaseError, router, transaction
from django.template.loader import render_to_string
from django.utils.translation import gettext, gettext_noop, override

from ... import conf
from ..._internal import randomness
from ..._internal.inserts import insert
from ..._internal.sql import delete_in_batches, savepoint
from ...errors import KeyMissing, KeyRingError
from ...subjects.account_changes import AccountChange
from . import conf as notices_conf
from .models import AccountNotice

logger = logging.getLogger("django_phi_oidc.subjects")
UNDELIVERABLE_DOMAIN = ".invalid"
"""Of the addresses that this package creates. Spec: RFC 2606 2."""
RETRY_DELAY = timedelta(minutes=1)
"""After the first attempt; twice as long after each further one. Also the length of the lease:
longer than the timeout of the mail server, or the mail may be sent twice.
"""
MAX_DOUBLINGS = 8
GIVE_UP_AFTER = timedelta(days=3)
MAIL_BATCH_SIZE = 100
LONG_ABSENCE = timedelta(days=90)
"""A sign-in after so long without one is unusual."""
_DAILY_NOTICES = UUID("6f0e8d5c-3c52-5b0f-9a7d-0f2f1f6f7a11")
"""The namespace of the ids of notices that are written once a day."""
_MAIL_SUBJECTS = {
    AccountChange.LINKED: gettext_noop("A sign-in was added to your account"),
    AccountChange.UNLINKED: gettext_noop("A sign-in was removed from your account"),
    AccountChange.NEW_DEVICE: gettext_noop("Your account was used with a new browser"),
    AccountChange.LONG_ABSENCE: gettext_noop("Your account was used after a long time"),
    AccountChange.SIGN_IN_REFUSED: gettext_noop("A sign-in to your account was refused"),
    AccountChange.STEP_UP_REFUSED: gettext_noop("A confirmation of your identity failed"),
    AccountChange.CODE_REFUSED: gettext_noop("An activation code for your account was refused"),
    AccountChange.PASSWORD_REFUSED: gettext_noop("A wrong password was entered for your account"),
    AccountChange.EMAIL_CHANGED: gettext_noop("The e-mail address of your account was changed"),
    AccountChange.PASSWORD_CHANGED: gettext_noop("The password of your account was changed"),
    AccountChange.ACTIVATED: gettext_noop("Your account was activated"),
    AccountChange.DEACTIVATED: gettext_noop("Your account was deactivated"),
    AccountChange.SESSIONS_ENDED: gettext_noop("Your account was signed out on other devices"),
}


def find_notice_address(user: Any) -> str:
    """Return the address for notices to user; empty if notices are off, or no mail can be
    delivered.
    """
    if (get_address := notices_conf.account_notices()) is None:
        return ""
    try:
        # A query of the project's function may fail in the transaction of a sign-in; the default
        # makes none.
        with nullcontext() if get_address is notices_conf.get_email_address else savepoint():
            address = str(get_address(user) or "").strip()
    except Exception as error:  # noqa: BLE001 -- the project's function must not prevent a sign-in
        logger.error("ACCOUNT_NOTICES: the function failed: %s.", type(error).__name__)  # noqa: TRY400 -- the message may contain the address
        return ""

    if _is_deliverable(address):
        return address
    return ""


def _is_deliverable(address: str) -> bool:
    try:
        validate_email(address)
    except ValidationError:
        return False
    return not address.lower().endswith(UNDELIVERABLE_DOMAIN)


def write_notices(
    users: Sequence[Any], kind: AccountChange, *, provider: str, now: datetime
) -> None:
    """Write a notice to each of these users, by one statement for all.

    Requires: the transaction of the change. Without encryption keys, no notice is written, and the
    change is not prevented. The notice about a new link also goes to the addresses that the account
    had when former links were removed. Spec: NIST SP 800-63C-4 3.7.1.
    """
    addresses: dict[Any, set[str]] = {}
    for user in users:
        addresses[user.pk] = set()
        address = find_notice_address(user)
        if address:
            addresses[user.pk].add(address)
    if kind == AccountChange.LINKED and notices_conf.account_notices() is not None:
        for user_pk, former_address in _iterate_former_addresses(list(addresses)):
            addresses[user_pk].add(former_address)
    notices = []
    for user_pk, user_addresses in addresses.items():
        for address in sorted(user_addresses):
            notice = _build_notice(user_pk, kind, provider=provider, address=address, now=now)
            notices.append(notice)
    _insert_notices(notices)


def write_address_notice(user: Any, former_address: str, *, now: datetime) -> None:
    """Write the notice about a changed e-mail address to the address for notices that the account
    had with the former.

    The function of the project decides: it may not use an address that is not verified.
    """
    former = copy(user)
    setattr(former, user.get_email_field_name(), former_address)
    if address := find_notice_address(former):
        _insert_notices(
            [
                _build_notice(
                    user.pk, AccountChange.EMAIL_CHANGED, provider="", address=address, now=now
                )
            ]
        )


def warn_user(user: Any, kind: AccountChange, *, provider: str, now: datetime) -> None:
    """Write a notice about a suspicious attempt, at most one a day (UTC) of each kind, so that no
    mailbox is flooded.

    The refusal that it is about must not fail: an error of the database is logged.
    """
    if not (address := find_notice_address(user)):
        return
    notice = _build_notice(user.pk, kind, provider=provider, address=address, now=now)
    notice.id = uuid5(_DAILY_NOTICES, f"{user.pk} {kind} {now.astimezone(UTC).date().isoformat()}")
    try:
        with savepoint():
            # A stored notice with that id stays as it is.
            _insert_notices([notice], unique=("id",), replaced=("kind",))
    except DatabaseError as error:
        logger.error("A notice was not written: %s.", type(error).__name__)  # noqa: TRY400 -- the message may contain the row


def _build_notice(
    user_pk: Any, kind: AccountChange, *, provider: str, address: str, now: datetime
) -> AccountNotice:
    return AccountNotice(
        id=randomness.uuid7(now),
        user_id=user_pk,
        occurred_at=now,
        due_at=now,
        kind=kind,
        provider=provider,
        address=address,
    )


def _insert_notices(notices: Sequence[AccountNotice], **conflict: Any) -> None:
    if not notices:
        return
    try:
        # Not save(), after whose errors the transaction cannot be committed.
        insert(notices, using=router.db_for_write(AccountNotice), **conflict)
    except KeyMissing as error:
        logger.error("A notice was not written: %s", error)  # noqa: TRY400 -- the traceback may contain the address


def send_due_notices(*, now: datetime) -> int:
    """Send the due notices, and return how many a mail server accepted. Without a mail server, the
    run ends at once.
    """
    sent = 0
    due = AccountNotice.objects.filter(due_at__lte=now).order_by("due_at", "pk")
    for notice in due[:MAIL_BATCH_SIZE]:
        if not _lease(notice, now=now):
            continue
        try:
            _send(notice)
        except Exception as error:  # noqa: BLE001 -- of any mail backend, or of a template of the project
            _report_failure(notice, error, now=now)
            # Other errors are about this mail: the next one may be accepted.
            if isinstance(error, OSError) and not isinstance(
                error, SMTPRecipientsRefused | SMTPResponseException
            ):
                break
        else:
            AccountNotice.objects.filter(pk=notice.pk).update(due_at=None, sent_at=now)
            sent += 1
    return sent


def delete_finished_notices(*, before: datetime) -> int:
    """Delete the notices that were sent or abandoned and are older than that, and return their
    number.
    """
    return delete_in_batches(AccountNotice.objects.filter(due_at=None, occurred_at__lt=before))


def _lease(notice: AccountNotice, *, now: datetime) -> bool:
    rows = AccountNotice.objects.filter(pk=notice.pk)
    delay = RETRY_DELAY * 2 ** min(notice.attempts, MAX_DOUBLINGS)
    with transaction.atomic():
        # A stopped process that locks one row must not hold up the mails of the others.
        free = rows.filter(due_at=notice.due_at).select_for_update(skip_locked=True)
        return bool(
            rows.filter(pk__in=free.values("pk")).update(
                due_at=now + delay, attempts=notice.attempts + 1
            )
        )


def _send(notice: AccountNotice) -> None:
    """Raises: OSError, also for SMTPException; KeyRingError; any exception of a mail backend or a
    template.
    """
    provider = conf.providers().get(notice.provider)
    # In the language of the site, because the account's is not known.
    with override(settings.LANGUAGE_CODE):
        if provider:
            label = str(provider.label or provider.name)
        else:
            label = ""

        at = notice.occurred_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
        context = {"kind": notice.kind, "provider": label, "occurred_at": at}
        subject = gettext(_MAIL_SUBJECTS[AccountChange(notice.kind)])
        body = render_to_string("django_phi_oidc/account_notice.txt", context)
    send_mail(subject, body, None, [_decrypt_address(notice)])


def _report_failure(notice: AccountNotice, error: Exception, *, now: datetime) -> None:
    # the message may contain the address
    logger.error("Notice %s was not sent: %s.", notice.pk, type(error).__name__)
    if now - notice.occurred_at >= GIVE_UP_AFTER:
        AccountNotice.objects.filter(pk=notice.pk).update(due_at=None)
        logger.error("Notice %s is abandoned.", notice.pk)


def _iterate_former_addresses(user_pks: Sequence[Any]) -> Iterator[tuple[Any, str]]:
    for notice in AccountNotice.objects.filter(user__in=user_pks, kind=AccountChange.UNLINKED):
        try:
            yield notice.user_id, _decrypt_address(notice)
        except KeyRingError as error:
            logger.error(  # noqa: TRY400 -- as above
                "The address of notice %s can't be decrypted: %s.", notice.pk, type(error).__name__
            )


def _decrypt_address(notice: AccountNotice) -> str:
    field: Any = AccountNotice._meta.get_field("address")
    return str(field.decrypt(notice))
