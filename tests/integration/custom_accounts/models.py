"""User models of host projects. Each is swappable, so that only the one of AUTH_USER_MODEL is installed."""

import uuid
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AbstractUser, BaseUserManager, PermissionsMixin
from django.db import models
from django.db.models.functions import Lower


class _Swappable:
    swappable = "AUTH_USER_MODEL"


class UniqueEmail(AbstractUser):
    """Django's user with an e-mail address that no two users share."""

    email = models.EmailField(unique=True)

    class Meta(_Swappable):
        pass


class UniqueOptionalEmail(AbstractUser):
    email = models.EmailField(unique=True, null=True, blank=True)

    class Meta(_Swappable):
        pass


class UniqueLowerEmail(AbstractUser):
    """Compares addresses without case, as many projects do."""

    class Meta(_Swappable):
        constraints = (models.UniqueConstraint(Lower("email"), name="custom_accounts_lower_email"),)


class EmailAsUserName(AbstractUser):
    """Signs in with the e-mail address, and keeps Django's `username`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)  # type: ignore[assignment]
    email = models.EmailField(unique=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = ("username",)

    class Meta(_Swappable):
        pass


class _EmailManager(BaseUserManager[Any]):
    def create_user(self, email: str, first_name: str, password: str | None = None, **fields: Any) -> Any:
        if not email:
            raise ValueError("An e-mail address is missing.")
        user = self.model(email=self.normalize_email(email), first_name=first_name, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user


class EmailOnly(AbstractBaseUser, PermissionsMixin):
    """Has no user name, a UUID as its key, a required name and an optional unique number."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    first_name = models.CharField(max_length=50)
    badge = models.CharField(max_length=20, unique=True, null=True)  # noqa: DJ001 -- what projects do
    is_active = models.BooleanField(default=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = ("first_name",)
    objects = _EmailManager()

    class Meta(_Swappable):
        pass


class UniqueWhileActive(AbstractUser):
    """Compares the addresses of active users only."""

    class Meta(_Swappable):
        constraints = (
            models.UniqueConstraint(fields=["email"], condition=models.Q(is_active=True), name="while_active"),
        )


class _PeopleManager(BaseUserManager[Any]):
    def create_user(self, mail: str, password: str) -> Any:
        return self.create(mail=mail, password=password or "!")


class Bare(AbstractBaseUser):
    """Has only what Django requires: no permissions, no `is_active`, no `objects`, and an address in a text field."""

    key = models.CharField(primary_key=True, max_length=36, default=uuid.uuid4)
    mail = models.CharField(max_length=200, unique=True)

    USERNAME_FIELD = EMAIL_FIELD = "mail"
    people = _PeopleManager()

    class Meta(_Swappable):
        pass


class NoUserName(AbstractUser):
    """Removes the user name and keeps Django's manager, which cannot create an account then."""

    username = None
    email = models.EmailField(unique=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = ()

    class Meta(_Swappable):
        pass


class RequiredNumber(AbstractUser):
    """Needs a value that nothing can derive."""

    badge = models.CharField(max_length=20, unique=True)

    class Meta(_Swappable):
        pass


class ShortUserName(AbstractUser):
    """Has a user name that is too short for an opaque one; only PostgreSQL refuses it."""

    username = models.CharField(max_length=12, unique=True)

    class Meta(_Swappable):
        pass
