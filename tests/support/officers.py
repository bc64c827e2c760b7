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
    """Return a client signed in as a staff member with these permissions; user: an existing user."""
    user = user or get_user_model().objects.create_user(uuid.uuid4().hex, **{"is_staff": True, **options})
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client(headers=headers)
    client.force_login(user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    client.user = user  # type: ignore[attr-defined]
    return client
