"""The registry of what apps store about a person, for exports and erasures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser

from ...audit.events import Origin
from ...extensions import Registry
from ...subjects.models import PairwiseSubject


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalDataExport:
    """An export of the data of a person, to which each app adds its own."""

    user: "AbstractBaseUser"
    subjects: "Sequence[PairwiseSubject]"
    hides_suspensions: bool
    """Whether the export omits what would show that an accounting of disclosures is suspended: the
    person must not see it.
    """
    unreadable_items: list[str]
    """Descriptions of items that cannot be decrypted. A source adds them here, and omits the
    items.
    """


class PersonalDataSource:
    """What an app stores about a person, for exports and erasures.

    A subclass overrides what its app needs.
    """

    erased_names: Sequence[str] = ()
    """The names of the numbers that `erase_account` returns, such as "invitations"."""

    def export_account(self, export: PersonalDataExport) -> Mapping[str, Any]:
        """Return the members of the document with what is stored for the account, as JSON
        values.
        """
        return {}

    def export_subjects(self, export: PersonalDataExport) -> Mapping[Any, Mapping[str, Any]]:
        """Return what is stored for the subjects, by primary key: for each the same members, as
        JSON values.

        The number of statements must not depend on the number of subjects.
        """
        return {}

    def erase_before_unlinking(self, user: "AbstractBaseUser") -> None:
        """Erase rows before links of the user are deleted, in that transaction.

        The subjects are locked, and not held. The user may have further links.
        """

    def erase_account(
        self, user: "AbstractBaseUser", *, origin: "Origin", now: datetime
    ) -> Mapping[str, int]:
        """Erase or close the rows of an account whose last link was deleted, in that transaction.

        Return how many rows were erased, by `erased_names`.
        """
        return {}

    def count_account(self, user: "AbstractBaseUser") -> Mapping[str, int]:
        """Return what `erase_account` would return."""
        return {}


personal_data_sources: Registry[PersonalDataSource] = Registry(
    "Export and erase what an app stores about a person."
)
