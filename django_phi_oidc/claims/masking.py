"""Placeholders for claims in templates: everything about a claim except its value."""

from typing import Any, NoReturn

from django.contrib.auth.base_user import AbstractBaseUser

from .. import conf
from ..audit.request_context import Actor
from ..config.claims import ClaimDeclaration
from ..fields import MASK
from .disclosure import RevealResult, reveal_many


class MaskedClaim:
    """A person's claim that only `reveal(purpose=…)` and the template tag `reveal` open.

    Each conversion to text gives the mask. Operations that need the value (JSON, pickle, truth,
    length, iteration) raise TypeError. It never holds the value; until it is revealed, it reads no
    row and records no event. A template's `{{ claim.reveal }}` has no purpose to pass, and is
    empty.
    """

    __slots__ = ("_actor", "_user", "name")

    def __init__(self, actor: Actor, user: AbstractBaseUser, name: str) -> None:
        self._actor = actor
        self._user = user
        self.name = name

    @property
    def declared(self) -> ClaimDeclaration | None:
        """The claim's declaration, which may be shown: purpose, basis, retention. None: it can
        never be revealed.
        """
        return conf.claims().get(self.name)

    def reveal(self, *, purpose: str, consent: str = "") -> Any:
        """Return the value as `disclosure.reveal` does. Each call is recorded. Raises: as
        `disclosure.reveal`.
        """
        return self.get_result(purpose=purpose, consent=consent).get()

    def get_result(self, *, purpose: str, consent: str = "") -> RevealResult:
        """Return the result, with the error if there is one. Each call is recorded. Raises:
        AuditUnavailable.
        """
        consents = {self._user.pk: consent}
        results = reveal_many(
            self._actor, [self._user], self.name, purpose=purpose, consents=consents
        )
        return results[self._user.pk][self.name]

    # Templates do not call a callable with this attribute.
    reveal.alters_data = get_result.alters_data = True  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return MASK

    __repr__ = __html__ = __str__

    def __format__(self, format_spec: str) -> str:
        return MASK

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "A masked claim has no truth value: reveal it to learn whether it has a value."
        )

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A masked claim belongs to one request: it can't be pickled or copied.")
