"""A user whose permissions are limited to those that an access token's scopes grant."""

import copy
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.utils.functional import SimpleLazyObject


class ScopedUser(SimpleLazyObject):  # type: ignore[type-arg]  # the stubs alone make it generic
    """A proxy of the user, with the permissions that both the user and the token have.

    Object permissions are checked by Django's `has_perm` too, so a token never grants more than its
    user has. `is_staff` and `is_superuser` are False, because they permit everything, which no
    scope does.
    NOT limited: queries that bypass these methods, such as guardian's get_objects_for_user, and
    methods of the host project's user model that call `self.has_perm`.
    """

    is_staff = is_superuser = False

    def __init__(self, user: AbstractBaseUser, permissions: Iterable[str]) -> None:
        super().__init__(lambda: user)
        self._wrapped: Any = user
        # The proxy would set the attribute on the user.
        self.__dict__["_token_permissions"] = frozenset(permissions)

    # Without these, a copy or an unpickled object would be the user without limits.
    def __copy__(self) -> "ScopedUser":
        return ScopedUser(copy.copy(self._wrapped), self._token_permissions)

    def __deepcopy__(self, memo: dict[int, Any]) -> "ScopedUser":
        return ScopedUser(copy.deepcopy(self._wrapped, memo), self._token_permissions)

    def __reduce__(self) -> tuple[Any, ...]:
        return ScopedUser, (self._wrapped, self._token_permissions)

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """A user model without permissions has none."""
        has_perm = getattr(self._wrapped, "has_perm", None)
        return (
            perm in self._token_permissions and has_perm is not None and bool(has_perm(perm, obj))
        )

    async def ahas_perm(self, perm: str, obj: Any = None) -> bool:
        return perm in self._token_permissions and bool(await self._wrapped.ahas_perm(perm, obj))

    def has_perms(self, perm_list: Iterable[str], obj: Any = None) -> bool:
        """Call the user's own method, which calls this object's has_perm for each."""
        return bool(type(self._wrapped).has_perms(self, perm_list, obj))

    async def ahas_perms(self, perm_list: Iterable[str], obj: Any = None) -> bool:
        return bool(await type(self._wrapped).ahas_perms(self, perm_list, obj))

    def has_module_perms(self, app_label: str) -> bool:
        return any(
            self.has_perm(permission) for permission in self._list_app_permissions(app_label)
        )

    async def ahas_module_perms(self, app_label: str) -> bool:
        return any(
            [
                await self.ahas_perm(permission)
                for permission in self._list_app_permissions(app_label)
            ]
        )

    def get_user_permissions(self, obj: Any = None) -> frozenset[str]:
        return frozenset(self._token_permissions & self._wrapped.get_user_permissions(obj))

    async def aget_user_permissions(self, obj: Any = None) -> frozenset[str]:
        return frozenset(self._token_permissions & await self._wrapped.aget_user_permissions(obj))

    def get_group_permissions(self, obj: Any = None) -> frozenset[str]:
        return frozenset(self._token_permissions & self._wrapped.get_group_permissions(obj))

    async def aget_group_permissions(self, obj: Any = None) -> frozenset[str]:
        return frozenset(self._token_permissions & await self._wrapped.aget_group_permissions(obj))

    def get_all_permissions(self, obj: Any = None) -> frozenset[str]:
        return frozenset(self._token_permissions & self._wrapped.get_all_permissions(obj))

    async def aget_all_permissions(self, obj: Any = None) -> frozenset[str]:
        return frozenset(self._token_permissions & await self._wrapped.aget_all_permissions(obj))

    def _list_app_permissions(self, app_label: str) -> list[str]:
        app_permissions = []
        for permission in self._token_permissions:
            if permission.startswith(f"{app_label}."):
                app_permissions.append(permission)
        return app_permissions
