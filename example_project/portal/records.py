"""The records of each patient."""

from django.contrib.auth.base_user import AbstractBaseUser


def resources_of(user: AbstractBaseUser) -> list[str]:
    """Return the identifiers of the user's records in the audit log, for the accounting of disclosures."""
    return [f"Patient/{user.pk}"]
