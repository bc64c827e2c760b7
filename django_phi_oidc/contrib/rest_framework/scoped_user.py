"""A person as far as an access token goes: what its scopes permit, of what the person has."""

import copy
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.utils.functional import SimpleLazyObject


class ScopedUser(SimpleLazyObject):  # type: ignore[type-arg]  # the stubs alone make it generic
    """The user, to whoever asks for anything but permissions; of those, the ones that are also the token's.

    Each permission is the user's own first, of an object by Django's `has_perm` too, so that a token never gives more
    than its user has. `is_staff` and `is_superuser` are False: they permit everything, and no scope does.
    NOT narrowed: queries that go past these methods, such as guardian's get_objects_for_user, and methods of a host's
    own user model that ask `self.has_perm`.
    """

    def __init__(self, user: AbstractBaseUser, permissions: Iterable[str]) -> None:
        super().__init__(lambda: user)
        self._wrapped: Any = user
        # Past the proxy, which would set it on the user.
        self.__dict__["_token_permissions"] = frozenset(permissions)

    # A copy, also one that is pickled, would be the user themselves.
    def __copy__(self) -> "ScopedUser":
        return ScopedUser(copy.copy(self._wrapped), self._token_permissions)

    def __deepcopy__(self, memo: dict[int, Any]) -> "ScopedUser":
        return ScopedUser(copy.deepcopy(self._wrapped, memo), self._token_permissions)

    def __reduce__(self) -> tuple[Any, ...]:
        return ScopedUser, (self._wrapped, self._token_permissions)

    @property
    def is_staff(self) -> bool:
        """No."""
        return False

    @property
    def is_superuser(self) -> bool:
        """No."""
        return False

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """Say whether the token permits it, and the user has it. A user model without permissions has none."""
        held = getattr(self._wrapped, "has_perm", None)
        return perm in self._token_permissions and held is not None and bool(held(perm, obj))

    async def ahas_perm(self, perm: str, obj: Any = None) -> bool:
        """Say it in a coroutine, as the following ones do."""
        return perm in self._token_permissions and bool(await self._wrapped.ahas_perm(perm, obj))

    def has_perms(self, perm_list: Iterable[str], obj: Any = None) -> bool:
        """Say it of all: by the user's own method, which asks this object for each."""
        return bool(type(self._wrapped).has_perms(self, perm_list, obj))

    async def ahas_perms(self, perm_list: Iterable[str], obj: Any = None) -> bool:
        """As has_perms."""
        return bool(await type(self._wrapped).ahas_perms(self, perm_list, obj))

    def has_module_perms(self, app_label: str) -> bool:
        """Say whether both have the same permission of that app."""
        return any(self.has_perm(permission) for permission in self._list_app_permissions(app_label))

    async def ahas_module_perms(self, app_label: str) -> bool:
        """As has_module_perms."""
        return any([await self.ahas_perm(permission) for permission in self._list_app_permissions(app_label)])

    def get_user_permissions(self, obj: Any = None) -> frozenset[str]:
        """Return those of the user's own that the token permits."""
        return frozenset(self._token_permissions & self._wrapped.get_user_permissions(obj))

    async def aget_user_permissions(self, obj: Any = None) -> frozenset[str]:
        """As get_user_permissions."""
        return frozenset(self._token_permissions & await self._wrapped.aget_user_permissions(obj))

    def get_group_permissions(self, obj: Any = None) -> frozenset[str]:
        """Return those of the user's groups that the token permits."""
        return frozenset(self._token_permissions & self._wrapped.get_group_permissions(obj))

    async def aget_group_permissions(self, obj: Any = None) -> frozenset[str]:
        """As get_group_permissions."""
        return frozenset(self._token_permissions & await self._wrapped.aget_group_permissions(obj))

    def get_all_permissions(self, obj: Any = None) -> frozenset[str]:
        """Return all of the user's that the token permits."""
        return frozenset(self._token_permissions & self._wrapped.get_all_permissions(obj))

    async def aget_all_permissions(self, obj: Any = None) -> frozenset[str]:
        """As get_all_permissions."""
        return frozenset(self._token_permissions & await self._wrapped.aget_all_permissions(obj))

    def _list_app_permissions(self, app_label: str) -> list[str]:
        return [permission for permission in self._token_permissions if permission.startswith(f"{app_label}.")]
