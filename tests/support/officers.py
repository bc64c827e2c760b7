"""Staff members, signed in to the admin."""

import uuid
from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client


def sign_in_officer(
    *codenames: str, user: Any = None, headers: Mapping[str, str] | None = None, **options: Any
) -> Client:
    """Return a client signed in as a staff member with these permissions; user: an existing user.

    Rows are written without `role.changed`, which would be among the events of a test.
    """
    user = user or create_account(uuid.uuid4().hex, **{"is_staff": True, **options})
    rows: Any = user.user_permissions.through._default_manager
    rows.filter(user=user).delete()
    permissions = Permission.objects.filter(codename__in=codenames)
    rows.bulk_create(rows.model(user=user, permission=permission) for permission in permissions)
    client = Client(headers=headers)
    client.force_login(user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    client.user = user  # type: ignore[attr-defined]
    return client


def create_account(username: str, *, password: str | None = None, **options: Any) -> Any:
    """Return a new account, without an event for its flags."""
    user: Any = get_user_model()(username=username, **options)
    user.set_password(password)
    get_user_model()._default_manager.bulk_create([user])
    return user
