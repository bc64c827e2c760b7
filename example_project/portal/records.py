"""What of the clinic's records is whose."""

from django.contrib.auth.base_user import AbstractBaseUser


def resources_of(user: AbstractBaseUser) -> list[str]:
    """Return what the trail calls that person's records, for whoever asks who looked at them."""
    return [f"Patient/{user.pk}"]
