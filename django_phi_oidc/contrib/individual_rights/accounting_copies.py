"""Copies of the accountings of disclosures that were given, kept for six years. Spec: 45 CFR
164.528(d).
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from ..._internal import randomness
from ..._internal.sql import delete_in_batches
from .models import AccountingCopy


def store_copy(account: str, lines: Sequence[str], *, now: datetime) -> str:
    """Store what is given to the person of that account, and return its SHA-256 in hexadecimal.

    A person who opens the same page again does not add a copy. Requires: an open transaction.
    Raises: KeyMissing.
    """
    text = "".join(f"{line}\n" for line in lines)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if not AccountingCopy.objects.filter(account=account, sha256=sha256).update(last_given_at=now):
        count = len(lines)
        AccountingCopy(
            id=randomness.uuid7(now),
            first_given_at=now,
            last_given_at=now,
            account=account,
            sha256=sha256,
            count=count,
            lines=text,
        ).save()
    return sha256


def delete_old_copies(*, before: datetime) -> int:
    """Delete the copies that were last given before that time, and return their number."""
    return delete_in_batches(AccountingCopy.objects.filter(last_given_at__lt=before))
