"""The accounts of the portal, as the pages of the audit log look them up."""

from collections.abc import Iterable

from django.contrib.admin import AdminSite
from django.http import HttpRequest  # noqa: TID251 -- passed on to the list of accounts

from ..audit.event_people import FoundPeople, FoundPerson, People
from .people import find_people
from .person_label import get_label
from .person_search import find_accounts, list_person_filters


class AccountDirectory:
    """Implements `extensions.PersonDirectory`."""

    def find_people(self, *, actors: Iterable[str], subjects: Iterable[str]) -> People:
        return find_people(actors=actors, subjects=subjects)

    def search_people(self, request: HttpRequest, site: AdminSite, term: str) -> FoundPeople:
        matches = find_accounts(request, site, term)
        filters = list_person_filters(matches.accounts)
        people = []
        for account in matches.accounts:
            people.append(
                FoundPerson(
                    label=f"{get_label(account)} ({account.get_username()})",
                    person_filter=filters[account.pk],
                )
            )
        return FoundPeople(people=tuple(people), has_more=matches.has_more)


ACCOUNT_DIRECTORY = AccountDirectory()
