"""Find the account that a text names: by the primary key, the user name, or the search of the
admin's list of users.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth import get_permission_codename, get_user_model
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from .models import PairwiseSubject

MAX_MATCHES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountMatches:
    """The accounts that match, at most MAX_MATCHES."""

    accounts: tuple[Any, ...] = ()
    has_more: bool = False

    @property
    def is_single(self) -> bool:
        return len(self.accounts) == 1


def find_accounts(request: HttpRequest, site: AdminSite, term: str) -> AccountMatches:
    """Return the accounts that a text names.

    A primary key, in full, is found by any user who may open the page. Names are searched only for
    users who may view the accounts, and with the fields of the admin's own list of users, if there
    is one.
    """
    account = find_account_by_key(term)
    model = get_user_model()
    users = site._registry.get(get_user_model())
    permission = f"{model._meta.app_label}.{get_permission_codename('view', model._meta)}"

    if users:
        can_view = users.has_view_permission(request)
    else:
        can_view = request.user.has_perm(permission)

    if not can_view or not term or "\0" in term:
        return AccountMatches(accounts=(account,) if account else ())
    name = model.USERNAME_FIELD

    if users:
        rows = users.get_queryset(request)
    else:
        rows = model._default_manager.all()

    exact = {}
    for row in [account, *rows.filter(**{f"{name}__iexact": term})[:MAX_MATCHES]]:
        if row:
            exact[row.pk] = row
    if exact:
        return AccountMatches(accounts=tuple(exact.values()))
    found = rows.filter(**{f"{name}__icontains": term})
    if users and users.get_search_fields(request):
        found, has_duplicates = users.get_search_results(request, rows, term)
        if has_duplicates:
            found = found.distinct()
    accounts = tuple(found.order_by(name)[: MAX_MATCHES + 1])
    return AccountMatches(accounts=accounts[:MAX_MATCHES], has_more=len(accounts) > MAX_MATCHES)


def list_person_filters(accounts: Iterable[Any]) -> dict[Any, str]:
    """Return for each account the value of the filter `person`, for the events by and about it, by
    one query.
    """
    values = {account.pk: str(account.pk) for account in accounts}
    rows: Iterable[PairwiseSubject]
    if values:
        rows = PairwiseSubject.objects.filter(user__in=values).order_by("pk")
    else:
        rows = ()

    for row in rows:
        values[row.user_id] += f",{row.uuid}"
    return values


def find_account_by_key(term: str) -> Any:
    """Return the account with that primary key, or None."""
    model = get_user_model()
    try:
        key = model._meta.pk.to_python(term or None)
        model._meta.pk.run_validators(key)
    except ValidationError:
        return None

    if key is not None:
        return model._base_manager.filter(pk=key).first()
    return None
