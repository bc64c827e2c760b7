"""Mails to a person when an identity is linked or unlinked, and after a sign-in with a new browser.

A notice is written in the transaction of the change, and sent by the periodic task, at least once. A mail server that
is unavailable delays it, and blocks no sign-in. It contains no name, no claim and no address of a client.
"""

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from smtplib import SMTPRecipientsRefused, SMTPResponseException
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email
from django.db import router, transaction
from django.template.loader import render_to_string
from django.utils.translation import gettext, gettext_noop, override

from .. import conf
from .._internal import randomness
from .._internal.sql import delete_in_batches, insert, savepoint
from ..errors import KeyMissing, KeyRingError
from .models import AccountNotice, NoticeKind

logger = logging.getLogger("django_phi_oidc.subjects")
UNDELIVERABLE_DOMAIN = ".invalid"
"""Of the addresses that this package creates. Spec: RFC 2606 2."""
RETRY_DELAY = timedelta(minutes=1)
"""After the first attempt; twice as long after each further one. Also the length of the lease: longer than the timeout
of the mail server, or the mail may be sent twice."""
MAX_DOUBLINGS = 8
GIVE_UP_AFTER = timedelta(days=3)
MAIL_BATCH_SIZE = 100
_MAIL_SUBJECTS = {
    NoticeKind.LINKED: gettext_noop("A sign-in was added to your account"),
    NoticeKind.UNLINKED: gettext_noop("A sign-in was removed from your account"),
    NoticeKind.NEW_DEVICE: gettext_noop("Your account was used with a new browser"),
}


def find_notice_address(user: Any) -> str:
    """Return the address for notices to user; empty if notices are off, or no mail can be delivered."""
    if (get_address := conf.account_notices()) is None:
        return ""
    try:
        # A query of the project's function may fail in the transaction of a sign-in; the default makes none.
        with nullcontext() if get_address is conf.get_email_address else savepoint():
            address = str(get_address(user) or "").strip()
        validate_email(address)
    except ValidationError:
        return ""
    except Exception as error:  # noqa: BLE001 -- the project's function must not prevent a sign-in
        logger.error("ACCOUNT_NOTICES: the function failed: %s.", type(error).__name__)  # noqa: TRY400 -- the message may contain the address
        return ""
    return "" if address.lower().endswith(UNDELIVERABLE_DOMAIN) else address


def write_notice(user: Any, kind: NoticeKind, *, provider: str, now: datetime) -> None:
    """Write a notice to user. Requires: the transaction of the change.

    Without encryption keys, no notice is written, and the change is not prevented. The notice about a new link also
    goes to the addresses that the account had when former links were removed.
    Spec: NIST SP 800-63C-4 3.7.1.
    """
    addresses = {address} if (address := find_notice_address(user)) else set()
    if kind == NoticeKind.LINKED and conf.account_notices() is not None:
        addresses.update(_iterate_former_addresses(user))
    for address in sorted(addresses):
        fields: dict[str, Any] = {"kind": kind, "provider": provider, "address": address}
        notice = AccountNotice(id=randomness.uuid7(now), user_id=user.pk, occurred_at=now, due_at=now, **fields)
        try:
            # Not save(), after whose errors the transaction cannot be committed.
            insert([notice], using=router.db_for_write(AccountNotice))
        except KeyMissing as error:
            logger.error("A notice was not written: %s", error)  # noqa: TRY400 -- the traceback may contain the address


def find_provider_name(issuer: str) -> str:
    """Return the name of the first provider with that issuer, or an empty text."""
    return next((name for name, provider in conf.providers().items() if provider.issuer == issuer), "")


def send_due_notices(*, now: datetime) -> int:
    """Send the due notices, and return how many a mail server accepted. Without a mail server, the run ends at once."""
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
            if isinstance(error, OSError) and not isinstance(error, SMTPRecipientsRefused | SMTPResponseException):
                break
        else:
            AccountNotice.objects.filter(pk=notice.pk).update(due_at=None, sent_at=now)
            sent += 1
    return sent


def delete_finished_notices(*, before: datetime) -> int:
    """Delete the notices that were sent or abandoned and are older than that, and return their number."""
    return delete_in_batches(AccountNotice.objects.filter(due_at=None, occurred_at__lt=before))


def _lease(notice: AccountNotice, *, now: datetime) -> bool:
    rows = AccountNotice.objects.filter(pk=notice.pk)
    delay = RETRY_DELAY * 2 ** min(notice.attempts, MAX_DOUBLINGS)
    with transaction.atomic():
        # A stopped process that locks one row must not hold up the mails of the others.
        free = rows.filter(due_at=notice.due_at).select_for_update(skip_locked=True)
        return bool(rows.filter(pk__in=free.values("pk")).update(due_at=now + delay, attempts=notice.attempts + 1))


def _send(notice: AccountNotice) -> None:
    """Raises: OSError, also for SMTPException; KeyRingError; any exception of a mail backend or a template."""
    provider = conf.providers().get(notice.provider)
    # In the language of the site, because the account's is not known.
    with override(settings.LANGUAGE_CODE):
        label = str(provider.label or provider.name) if provider else ""
        at = notice.occurred_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
        context = {"kind": notice.kind, "provider": label, "occurred_at": at}
        subject = gettext(_MAIL_SUBJECTS[NoticeKind(notice.kind)])
        body = render_to_string("django_phi_oidc/account_notice.txt", context)
    send_mail(subject, body, None, [_decrypt_address(notice)])


def _report_failure(notice: AccountNotice, error: Exception, *, now: datetime) -> None:
    logger.error("Notice %s was not sent: %s.", notice.pk, type(error).__name__)  # the message may contain the address
    if now - notice.occurred_at >= GIVE_UP_AFTER:
        AccountNotice.objects.filter(pk=notice.pk).update(due_at=None)
        logger.error("Notice %s is abandoned.", notice.pk)


def _iterate_former_addresses(user: Any) -> Iterator[str]:
    for notice in AccountNotice.objects.filter(user=user.pk, kind=NoticeKind.UNLINKED):
        try:
            yield _decrypt_address(notice)
        except KeyRingError as error:
            logger.error("The address of notice %s can't be decrypted: %s.", notice.pk, type(error).__name__)  # noqa: TRY400 -- as above


def _decrypt_address(notice: AccountNotice) -> str:
    field: Any = AccountNotice._meta.get_field("address")
    return str(field.decrypt(notice))
