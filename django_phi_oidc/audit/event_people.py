"""Look up the people that events name in the registered directory.

The audit log stores keys and UUIDs. Without a directory, the pages show these.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..extensions import person_directories
from .operators import find_stated_account_pk

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite
    from django.http import HttpRequest  # noqa: TID251 -- a type of what the pages pass on


@dataclass(frozen=True, slots=True)
class Person:
    """A person on a page: the name, and the address of the person's page, which is empty if the
    site has none.
    """

    label: str
    url: str

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """The persons of one page."""

    by_account: Mapping[str, Person] = field(default_factory=dict)
    """By the primary key as text."""
    by_subject: Mapping[str, Person] = field(default_factory=dict)
    """By the UUID as text."""

    def find_actor(self, actor: str) -> Person | None:
        """Return the person that an event names as its actor; None: the account is deleted, or it
        is no account.
        """
        return self.by_account.get(find_stated_account_pk(actor) or actor)

    def find_subject(self, subject: str) -> Person | None:
        """Return the person of a subject's UUID; None: it is unlinked or unknown."""
        return self.by_subject.get(subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPerson:
    """A person that a search found."""

    label: str
    person_filter: str
    """The value of the filter `person` for the events by and about the person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPeople:
    """The persons that a search found. has_more: there are others that are not listed."""

    people: tuple[FoundPerson, ...] = ()
    has_more: bool = False

    @property
    def is_single(self) -> bool:
        return len(self.people) == 1


def find_people(*, actors: Iterable[str] = (), subjects: Iterable[str] = ()) -> People:
    """Return the people that these actors and subjects of events are."""
    for directory in person_directories:
        return directory.find_people(actors=actors, subjects=subjects)
    return People()


def search_people(request: "HttpRequest", site: "AdminSite", term: str) -> FoundPeople:
    """Return the people that a text names, as far as the user of the request may view accounts."""
    for directory in person_directories:
        return directory.search_people(request, site, term)
    return FoundPeople()
