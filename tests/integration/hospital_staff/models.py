"""A user model that has little of Django's own: an opaque key, and a name that is an address."""

import uuid
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import BaseUserManager, PermissionsMixin
from django.db import models


class Members(BaseUserManager["Member"]):
    """Makes members."""

    def create_user(self, email: str, **given: Any) -> "Member":
        return self.create(email=email, **given)


class Member(AbstractBaseUser, PermissionsMixin):
    """Somebody with an account."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)

    USERNAME_FIELD = "email"
    objects = Members()
