"""What a template may hold of a claim before somebody says why it should be opened: all but the value."""

from typing import Any, NoReturn

from django.contrib.auth.base_user import AbstractBaseUser

from .. import conf
from ..audit.request_context import Actor
from ..config.claims import ClaimDeclaration
from ..fields import MASK
from .disclosure import reveal


class MaskedClaim:
    """A claim of a person that nothing opens but `reveal(purpose=…)`, and the template tag `reveal`.

    As text, however it is made, it is the mask. What would need the value (JSON, a pickle, a truth, a length, an
    iteration) is a TypeError. It holds no value, before or after; until it is revealed it asks no database and leaves
    no event. A template's `{{ claim.reveal }}` has no purpose to give, and is empty.
    """

    __slots__ = ("_actor", "_user", "name")

    def __init__(self, actor: Actor, user: AbstractBaseUser, name: str) -> None:
        self._actor, self._user, self.name = actor, user, name

    @property
    def declared(self) -> ClaimDeclaration | None:
        """What the project declares of it, and may be shown: purpose, basis, retention. None: it is never opened."""
        return conf.claims().get(self.name)

    def reveal(self, *, purpose: str) -> Any:
        """Return the value, and raise, as `claims.reveal` does; asked again, it is recorded again."""
        return reveal(self._actor, self._user, self.name, purpose=purpose)

    # Templates call what can be called, but not what bears this.
    reveal.alters_data = True  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return MASK

    __repr__ = __html__ = __str__

    def __format__(self, format_spec: str) -> str:
        return MASK

    def __bool__(self) -> NoReturn:
        raise TypeError("Whether there is a value behind the mask is known when it is revealed.")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A masked claim is of one request: it can't be pickled or copied.")
