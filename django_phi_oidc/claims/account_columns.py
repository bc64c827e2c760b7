"""Claims that a hook of the project stored in a column of the account, where this package does not
encrypt them.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.views.decorators.debug import sensitive_variables

from ..audit.events import MAX_ITEMS, Action, NewEvent, Origin

_MIN_PART_LENGTH = 4
"""Characters of a value that is also found as a part of a longer text; a shorter one must be the
whole text.
"""


@sensitive_variables()
def list_claims_in_account(account: AbstractBaseUser, claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sorted names of the claims whose value is in a column of the account, without its
    encrypted columns.

    NOT found: a value that was changed before it was stored, or that is in another table.
    """
    columns = _list_texts(account)
    return tuple(sorted(name for name, value in claims.items() if _is_stored(value, columns)))


def build_account_claim_events(
    claim_names: tuple[str, ...],
    *,
    origin: Origin,
    now: datetime,
    provider: str = "",
    subject: str = "",
) -> Iterator[NewEvent]:
    """Yield the events that name the claims in columns of an account."""
    for start in range(0, len(claim_names), MAX_ITEMS):
        detail = {"claims": list(claim_names[start : start + MAX_ITEMS]), "place": "account"}
        yield NewEvent(
            action=Action.CLAIM_STORED,
            origin=origin,
            now=now,
            provider=provider,
            subject=subject,
            detail=detail,
        )


@sensitive_variables()
def _list_texts(account: AbstractBaseUser) -> list[str]:
    """Return the texts and dates in the columns of the account, casefolded."""
    texts = []
    for field in account._meta.concrete_fields:
        if field.primary_key or field.is_relation or field.name == "password":
            continue
        # Not by getattr, which would fetch a deferred column. An encrypted column has an
        # EncryptedText.
        value = vars(account).get(field.attname)
        if isinstance(value, str | date):
            texts.append(str(value).casefold())
    return texts


def _is_stored(value: Any, columns: list[str]) -> bool:
    """Return whether the value, an item or a member of it is in one of the columns."""
    if isinstance(value, Mapping):
        return any(_is_stored(member, columns) for member in value.values())
    if isinstance(value, list | tuple):
        return any(_is_stored(item, columns) for item in value)

    if isinstance(value, str):
        text = value.strip().casefold()
    else:
        text = ""

    if len(text) < _MIN_PART_LENGTH:
        return bool(text) and text in columns
    return any(text in column for column in columns)
