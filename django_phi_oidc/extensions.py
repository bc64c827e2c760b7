"""The typed registries: the only way from the core to an app.

Each app fills them in `AppConfig.ready()`, in the order of INSTALLED_APPS. The core calls what is
registered in that order, inside the transaction of its own work, so that what runs within a sign-in
can be read here and is printed by `phi_oidc configuration show`. Signals of Django would hide it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from .audit.events import NewEvent
    from .audit.request_context import Actor
    from .config.providers import ProviderDeclaration
    from .subjects.models import PairwiseSubject

T = TypeVar("T")


class Registry(Generic[T]):
    """What apps have registered for one purpose, in order."""

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        """One sentence, for `phi_oidc configuration show`."""
        self._items: list[T] = []

    def register(self, item: T) -> None:
        """Add item, unless it is there: `ready()` runs again when a test changes INSTALLED_APPS."""
        if item not in self._items:
            self._items.append(item)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __bool__(self) -> bool:
        return bool(self._items)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessOverride:
    """Replaces a missing permission of one actor on one resource, for a limited time."""

    source: "AccessOverrideSource"
    purpose: str
    """HL7 code: the actor may state it as well as those of the policy, and the event contains
    it.
    """
    detail: Mapping[str, str]
    """Names the override in the detail of each event about it."""


class AccessOverrideSource(Protocol):
    """Finds access overrides, and records what they permit while the audit log is unavailable."""

    def is_declared(self) -> bool:
        """Return whether the settings offer any override."""

    def find_override(
        self, actor: "Actor", *, resource: str, permission: str, now: datetime
    ) -> AccessOverride | None:
        """Return the override that grants actor the permission on the resource now."""

    def find_opening_url(
        self, actor: "Actor", *, resource: str, permission: str | None, next_url: str
    ) -> str:
        """Return the URL of the page on which actor may open an override for the resource; "" if
        actor may not.

        permission: that it must grant; None: any. next_url: where the page leads back.
        """

    def has_spool(self) -> bool:
        """Return whether the events of permits can be stored while the audit log is unavailable."""

    def record_or_spool(self, new_event: "NewEvent") -> bool:
        """Commit the event of a permit to the audit log, or store it in the spool. Return whether
        it is in the audit log.

        Requires: `has_spool`. Raises: AuditUnavailable, and then nothing may be permitted.
        """

    def spool_event(self, new_event: "NewEvent") -> None:
        """Store the event of a permit, because the audit log is unavailable.

        Requires: `has_spool`. Raises: AuditUnavailable, and then nothing may be permitted.
        """


class EventQueue(Protocol):
    """Authenticated events that were stored on this machine while the audit log was unavailable."""

    name: str
    """In messages to operators, such as "spool"."""

    def has_events(self) -> bool:
        """Return whether events wait. No query, because each recorded access decision asks."""

    def flush(self, *, now: datetime, timeout_seconds: float | None = None) -> int:
        """Move the events to the audit log, in order, and return how many were moved.

        timeout_seconds: as for `insert_events`.
        Raises: AuditUnavailable, and then the events stay; OSError; KeyMissing.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A verified sign-in whose sessions are created in the current transaction."""

    user: Any
    provider: "ProviderDeclaration"
    subject: "PairwiseSubject"
    sub: str = field(repr=False)
    offered_acr_values: Sequence[str]
    """The values that the provider's metadata listed at the sign-in."""
    now: datetime


class SignInObserver:
    """What an app does in the transaction of a sign-in, in the order of these methods. An exception
    refuses the sign-in.
    """

    def prepare_session(self, sign_in: SignIn) -> None:
        """Called after the person is identified and their roles are synchronized, before any row of
        the new session is written.
        """

    def get_session_entries(self, sign_in: SignIn) -> Mapping[str, Any]:
        """Return what the app stores in the Django session. It is inserted with these entries."""
        return {}


SignInDemand: TypeAlias = "Callable[[Actor], bool]"
"""Returns whether a guarded page must ask the actor for a new sign-in."""

access_overrides: Registry[AccessOverrideSource] = Registry(
    "Replace a missing permission for a limited time."
)
event_queues: Registry[EventQueue] = Registry(
    "Hold events of this machine while the audit log is unavailable."
)
sign_in_demands: Registry[SignInDemand] = Registry(
    "Demand a new sign-in before the next guarded page."
)
sign_in_observers: Registry[SignInObserver] = Registry(
    "Act in the transaction of a sign-in, and add to its Django session."
)
