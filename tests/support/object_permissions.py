"""An authentication backend that grants permissions only for objects, as tests set them."""

from typing import Any

from django.contrib.auth.backends import BaseBackend

GRANTED: set[tuple[Any, str, Any]] = set()
"""Primary key of the user, permission, and object."""


class ObjectPermissionBackend(BaseBackend):
    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        return obj is not None and (user_obj.pk, perm, obj) in GRANTED
