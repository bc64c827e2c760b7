"""A minimal custom user model: a UUID key, and an email address as user name."""

import uuid
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import BaseUserManager, PermissionsMixin
from django.db import models


class Members(BaseUserManager["Member"]):
    """Creates members."""

    def create_user(self, email: str, **fields: Any) -> "Member":
        return self.create(email=email, **fields)


class Member(AbstractBaseUser, PermissionsMixin):
    """A user."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)

    USERNAME_FIELD = "email"
    objects = Members()
