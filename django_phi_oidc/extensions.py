"""The typed registries: the only way from the core to an app.

Each app fills them in `AppConfig.ready()`, in the order of INSTALLED_APPS. The core calls the
registered items in that order, inside its own transaction. These are lists and not signals of
Django, so that this module and `phi_oidc configuration show` list everything that runs within a
sign-in.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    import uuid

    from django.contrib.admin import AdminSite
    from django.db.models import Q, QuerySet
    from django.http import HttpRequest, HttpResponse  # noqa: TID251 -- types of what edges pass on

    from .access.roles import Role
    from .audit.event_people import FoundPeople, People
    from .audit.events import NewEvent, Origin
    from .audit.request_context import Actor, Session, User
    from .config.providers import ProviderDeclaration
    from .crypto.claim_keys import KeyCache
    from .http.transport import Transport
    from .login.code_exchange import VerifiedSignIn
    from .login.failures import LoginError, SignInAttempt
    from .login.state_cookie import AuthorizationState
    from .oidc.jwks import JSONWebKeySet
    from .oidc.metadata import ProviderMetadata
    from .subjects.account_changes import AccountChange
    from .subjects.models import PairwiseSubject

T = TypeVar("T")


class Registry(Generic[T]):
    """The items that apps have registered for one purpose, in order."""

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        """One sentence."""
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
    """An HL7 code. The actor may state it in addition to the purposes of the policy, and the event
    contains it.
    """
    detail: Mapping[str, str]
    """Members of the event's detail that identify the override."""


class AccessOverrideSource(Protocol):
    """Finds access overrides, and records the accesses that they permit, also while the audit log
    is unavailable.
    """

    def is_offered(self, permission: str | None = None) -> bool:
        """Return whether the settings offer an override of the permission; None: of any."""

    def requires_assurance(self) -> bool:
        """Return whether the settings declare an `acr` that the sign-in must have."""

    def find_override(
        self, actor: "Actor", *, resource: str, permission: str, now: datetime
    ) -> AccessOverride | None:
        """Return the override that grants actor the permission on the resource now."""

    def find_opening_url(self, actor: "Actor", *, resource: str, next_url: str) -> str:
        """Return the URL of the page on which actor may open an override for the resource; "" if
        actor may not. next_url: where the page redirects afterwards.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditJobPages:
    """The names of the URLs on which an app exports and verifies the audit log."""

    jobs: str
    """The list of the jobs."""
    export: str
    """Takes a POST with the filters of the list of events."""
    verify: str
    """Takes a POST."""
    verify_file: str
    """Asks for an exported file. Takes the filters of the export as its query string."""


class ClaimKeySummary(Protocol):
    """The existing keys of claims, for the retention report."""

    def get_row(self) -> Mapping[str, Any]:
        """Return the members of the JSON object."""

    def list_lines(self) -> Sequence[str]:
        """Return the sentences of the text."""


class ClaimKeySource(Protocol):
    """Supplies keys for claims, stores them outside the database, and destroys them when no claim
    needs them.

    The last four methods require that it is enabled.
    """

    def is_enabled(self) -> bool:
        """Return whether new claims are encrypted under these keys."""

    def name_day_key(self, obtained_at: datetime, retention: timedelta | Literal["session"]) -> str:
        """Return the name of the key for claims with that retention, for their `bucket`."""

    def join_names(self, bucket: str, person_key_id: "uuid.UUID") -> str:
        """Return the names of all keys of a claim with that bucket.

        person_key_id: the `retention_key_id` of its subject.
        """

    def find_key(self, names: str, *, cache: "KeyCache | None") -> bytes | None:
        """Return the key of texts with these names; None if it was destroyed. cache: the keys that
        the same operation has read. Raises: KeyMissing.
        """

    def get_or_create_key(self, names: str, *, cache: "KeyCache | None") -> bytes:
        """Return the key of texts with these names, creating it if necessary. Raises:
        KeyMissing.
        """

    def replace_person_keys(
        self, subjects: "Sequence[PairwiseSubject]", *, held_claims: Collection[int]
    ) -> None:
        """Mark the keys of persons as unused, in the transaction that erases their claims.

        held_claims: the primary keys of claims of these persons that a hold preserves; keys that
        these need are kept. Requires: the subjects are locked. Changes `retention_key_id`.
        """

    def count_unused_keys(self, *, now: datetime, due: "Q") -> int:
        """Return how many keys `destroy_unused_keys` would destroy after the erasure of the claims
        that meet the condition. Raises: KeyMissing.
        """

    def destroy_unused_keys(self, *, now: datetime) -> list[str]:
        """Destroy the keys that no claim uses or will use; return their names. The event is
        committed before.

        Raises: AuditUnavailable; KeyMissing, after the other keys were destroyed.
        """

    def get_summary(self) -> ClaimKeySummary:
        """Return a summary of the keys. Raises: KeyMissing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimPreservation:
    """How new claims of a held person are stored."""

    key_name: str
    """The name of the retention key that encrypts them; "" if retention keys are disabled."""
    kept_names: Collection[str]
    """Names of stored claims that could not be preserved, and so must not be replaced."""


class VerifiedAccessToken(Protocol):
    """The members of a verified access token that the origin of an event needs."""

    @property
    def client_id(self) -> str: ...

    @property
    def acr(self) -> str: ...

    @property
    def auth_time(self) -> datetime | None: ...


class AccessTokenSource(Protocol):
    """Finds the access token that authenticated a request."""

    def __call__(self, request: "HttpRequest") -> VerifiedAccessToken | None:
        """Return a token only if this app has verified it: events then name its client, and no
        session.
        """


class AccountMatch(Protocol):
    """The existing account of a first sign-in, found in another way than by the subject."""

    @property
    def method(self) -> str:
        """Return the name of the way, for the event of the link."""

    def find_user_id(self) -> Any:
        """Return the primary key of the account, which `get_locked_user` checks, or None.

        Raises: EmailMatchRefused, AuditUnavailable.
        """

    def get_locked_user(self, user_id: Any) -> Any:
        """Return the account, locked until the end of the transaction.

        Raises: EmailMatchRefused, also if another transaction has changed the account or linked it
        in the meantime.
        """


class AccountSource(Protocol):
    """Finds the existing account of a first sign-in by claims of the provider."""

    claims: Collection[str]
    """Requested while the source is in force, and neither kept nor reported unless they are
    declared.
    """

    def is_declared(self, declaration: "ProviderDeclaration") -> bool:
        """Return whether the provider has the option of this source."""

    def is_in_force(self, declaration: "ProviderDeclaration", *, now: datetime) -> bool:
        """Return whether the option applies now."""

    def find_identifier(self, *sources: Mapping[str, Any]) -> str:
        """Return by what the account is found; "" if there is nothing. sources: the claims of the
        ID Token and of UserInfo.
        """

    def create_match(
        self, identifier: str, *, provider: "ProviderDeclaration", now: datetime
    ) -> AccountMatch:
        """Return the account of that identifier, which `find_identifier` has returned."""


class AccountObserver:
    """Called when an account changes or is attacked. A subclass overrides what it needs.

    users and user are accounts of the project's model.
    """

    def record_changes(
        self, users: Sequence[Any], change: "AccountChange", *, provider: str, now: datetime
    ) -> None:
        """Called in the transaction of the change. provider: the declared name, or ""."""

    def record_address_change(self, user: Any, former_address: str, *, now: datetime) -> None:
        """Called in the transaction that replaces the e-mail address."""

    def record_suspicion(
        self, user: Any, suspicion: "AccountChange", *, provider: str, now: datetime
    ) -> None:
        """Called about a suspicious attempt, which is refused anyway. It must not raise."""

    def revoke_credentials(
        self,
        user_pks: Sequence[Any],
        *,
        provider: str | None,
        reason: str,
        origin: "Origin",
        now: datetime,
    ) -> None:
        """Revoke credentials, such as invitations, with which another person could be linked to
        these accounts, in the current transaction.

        Called before an account is linked, and when its access ends. provider: None for all.
        reason: for the events.
        """

    def is_invited(self, user_pk: Any, *, provider: str, now: datetime) -> bool:
        """Return whether a person may still prove, with an invitation, that the account is
        theirs.
        """
        return False


class DelegationSource(Protocol):
    """Finds the account for which a user acts, such as the child of a parent."""

    def __call__(self, user: "User", session: "Session", request: "HttpRequest") -> str:
        """Return the primary key of that account as text; empty if the user acts for no other
        account.

        user: authenticated. session: empty if it is that of another user, or if an access token
        authenticated the request. Called for each event of a request, so it reads no database.
        """


class DisclosureObserver(Protocol):
    """Called before the event of a disclosure to a user is recorded, in the same transaction if
    there is one.
    """

    def __call__(self, user: Any, *, now: datetime, resource: str = "") -> None:
        """resource: what is disclosed, if it is a `Type/id`; "" for claims."""


class EventQueue(Protocol):
    """Authenticated events that were stored on this machine while the audit log was unavailable."""

    name: str
    """In messages to operators, such as "spool"."""

    def has_events(self) -> bool:
        """Return whether events are waiting. Each recorded access decision calls it, so it runs no
        query.
        """

    def flush(self, *, now: datetime, timeout_seconds: float | None = None) -> int:
        """Move the events to the audit log, in order, and return how many were moved.

        timeout_seconds: as for `insert_events`.
        Raises: AuditUnavailable, and then the events stay; OSError; KeyMissing.
        """


class EventReader(Protocol):
    """Processes events one by one, and sets those aside that fail (`audit.set_aside_events`)."""

    kind: str
    """The name of the reader up to a colon: `rule` for the reader `rule:replay`."""

    def retry(self, reader: str, event_id: "uuid.UUID") -> None:
        """Process one event that was set aside. reader: the whole name. Any exception keeps it
        there.
        """

    def drop(self, event_id: "uuid.UUID") -> str:
        """Delete what only this reader has of the event, in the open transaction, and return it as
        text; "" if the event is in the audit log.
        """


class EventWords:
    """Labels and texts for the values in events, on the pages of the audit log.

    A subclass overrides what its app needs. The first answer that is not empty is shown.
    """

    def find_provider_label(self, name: str) -> str:
        """Return the label of a provider."""
        return ""

    def find_detail_label(self, key: str, value: str) -> str:
        """Return the translated label of a value of `detail`."""
        return ""

    def find_remedy(self, action: str, reason: str, provider_error: str) -> str:
        """Return what an operator can do about a refusal or failure, translated."""
        return ""

    def list_purposes(self) -> Collection[str]:
        """Return the purposes of use that events of this app may have, for the filter."""
        return ()


class ForeignSessionObserver(Protocol):
    """Called before a Django session without an OIDC session is deleted: at a logout, and when a
    sign-in replaces it.
    """

    def __call__(self, session: Mapping[str, Any], *, now: datetime) -> None:
        """session: of another authentication backend, or of an anonymous visitor. An exception
        prevents the deletion.
        """


class PersonDirectory(Protocol):
    """Finds the people that events name. The pages use the first directory."""

    def find_people(self, *, actors: Iterable[str], subjects: Iterable[str]) -> "People":
        """Return the people of these actors and subjects of events, with one SELECT, or with none
        if both are empty.
        """

    def search_people(self, request: "HttpRequest", site: "AdminSite", term: str) -> "FoundPeople":
        """Return the people that match a text and that the user of the request may view."""


class MetadataSource(Protocol):
    """Fetches the metadata and the keys of some providers in place of OIDC Discovery.

    timeout_seconds: for all requests of a method together.
    """

    def is_declared(self, declaration: "ProviderDeclaration") -> bool:
        """Return whether the metadata of the provider come from this source only."""

    def fetch_metadata(
        self,
        declaration: "ProviderDeclaration",
        *,
        transport: "Transport",
        timeout_seconds: float,
        now: datetime,
    ) -> "tuple[ProviderMetadata, float]":
        """Return the validated metadata with their `statement`, and for how many seconds they are
        fresh.

        Raises: TransportError, MetadataError.
        """

    def find_keys(
        self,
        metadata: "ProviderMetadata",
        *,
        declaration: "ProviderDeclaration",
        transport: "Transport",
        timeout_seconds: float,
        now: datetime,
    ) -> "tuple[JSONWebKeySet, Mapping[str, str]] | None":
        """Return the keys for tokens and the headers of the response; None if they are at the
        `jwks_uri`.

        Requires: the statement of metadata contains no keys. Raises: TransportError, MetadataError.
        """


class LocalAccountSource(Protocol):
    """Declares accounts that sign in with a password while the provider is unavailable.

    Their sessions are not OIDC sessions. They have the entry LOCAL_SIGN_IN_KEY, and are admitted to
    a guarded view by an access override only.
    """

    def list_names(self) -> Collection[str]:
        """Return the user names of the accounts. They are linked to no person automatically, and
        managed by no identity system.
        """

    def render_refusal(
        self, request: "HttpRequest", *, code: str, emergency_url: str
    ) -> "HttpResponse":
        """Return the response to a local account that a guarded view refuses.

        It must not redirect to the provider. code: why it is refused. emergency_url: the page that
        opens an access override for the resource; "" if there is none.
        """


MetadataNeed: TypeAlias = "Callable[[ProviderDeclaration], Collection[str]]"
"""Returns the names of the members that the metadata of the provider must have."""


class RetentionGuard(Protocol):
    """Preserves the claims of persons, for example by legal holds.

    It sets `held_until` of a subject and of its stored claims while it has locked the subject. The
    core and the triggers refuse an erasure because of that column; no erasure calls the guard.
    """

    def preserve_claims(
        self, subject: "PairwiseSubject", names: Collection[str], *, now: datetime
    ) -> ClaimPreservation | None:
        """Keep the claims with these names as expired claims, because new ones are about to replace
        them.

        Return None if this guard does not hold the subject. Requires: `held_until` of the subject
        is in the future, and the caller has locked its row.
        """

    def may_need_key(self, key_name: str, *, now: datetime) -> bool:
        """Return whether a claim may be encrypted under this key of a hold, or will be.

        Called for keys without a claim in the database.
        """

    def list_held_subjects(self, *, now: datetime) -> "QuerySet[Any, Any]":
        """Return the primary keys of the held subjects. They are few, and `held_until` has no
        index.
        """

    def count_holds(self, *, now: datetime) -> int:
        """Return the number of active holds, for the retention report."""


class RefusedSignInHandler:
    """Called when a sign-in is refused after the provider answered."""

    def remember_unlinked_sign_in(self, request: "HttpRequest", sign_in: "VerifiedSignIn") -> None:
        """Called before the refusal of a verified person without an account."""

    def record_refusal(
        self,
        actor: "Actor",
        error: "LoginError",
        attempt: "SignInAttempt",
        pending: "AuthorizationState | None",
    ) -> None:
        """Called before the event of the refusal is recorded. It must not raise."""

    def find_response(
        self,
        request: "HttpRequest",
        error: "LoginError",
        attempt: "SignInAttempt",
        *,
        next_url: str,
    ) -> "HttpResponse | None":
        """Report the refusal and return a page on which the person can go on; None if there is
        none.
        """
        return None


class RoleSource(Protocol):
    """Decides about groups and flags of accounts by what is known at a sign-in."""

    def sync_roles(self, sign_in: "SignIn", *, claims: Mapping[str, Any], origin: "Origin") -> None:
        """Change the roles of the account and record the changes, in the transaction of the
        sign-in.

        No session of the sign-in exists yet, because a change of roles may end the person's other
        sessions. No row of an account was written, because a source may lock several of them in
        order. claims: the declared ones, also those that are not stored.
        """

    def explain_role(self, role: "Role") -> Iterator[str]:
        """Yield why accounts may have the role, translated, for the page of a person."""

    def list_withdrawals(self, roles: "Sequence[Role]") -> Iterator[str]:
        """Yield a sentence for each provider whose sign-ins may withdraw some of these roles, which
        are about to be granted.
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
    last_seen_at: datetime
    """The time of the previous sign-in of the person."""
    is_new_link: bool
    """Whether this sign-in created the account."""
    now: datetime


class SignInObserver:
    """Called in the transaction of a sign-in, in the order of these methods. An exception refuses
    the sign-in.
    """

    def prepare_session(self, sign_in: SignIn) -> None:
        """Called after the person is identified and their roles are synchronized, before any row of
        the new session is written.
        """

    def get_session_entries(self, sign_in: SignIn) -> Mapping[str, Any]:
        """Return what the app stores in the Django session. It is inserted with these entries."""
        return {}

    def record_sign_in(self, sign_in: SignIn, get_device: Callable[[], str]) -> None:
        """Called when the Django session is stored, and the user logged in.

        get_device: returns the random id of this browser, and sets its cookie if there is none.
        """


AuditLogCopy: TypeAlias = Callable[[], bool]
"""Returns whether the settings declare a system that receives each event of the audit log."""
OwnResourceRule: TypeAlias = Callable[[Any, str], bool]
"""Returns whether a resource (`Type/id`) is about the user. It must not raise."""
SignInDemand: TypeAlias = "Callable[[Actor], bool]"
"""Returns whether a guarded page must ask the actor for a new sign-in."""

access_overrides: Registry[AccessOverrideSource] = Registry(
    "Replace a missing permission for a limited time."
)
access_token_sources: Registry[AccessTokenSource] = Registry(
    "Find the verified access token that authenticated a request."
)
account_observers: Registry[AccountObserver] = Registry(
    "Act when an account changes, is attacked or loses its access."
)
account_sources: Registry[AccountSource] = Registry(
    "Find the existing account of a first sign-in. The first one that is in force is used."
)
audit_job_pages: Registry[AuditJobPages] = Registry(
    "Offer exports and verifications on the pages of the audit log. The first one is used."
)
audit_log_copies: Registry[AuditLogCopy] = Registry(
    "Return whether the settings copy the audit log to another system."
)
claim_key_sources: Registry[ClaimKeySource] = Registry(
    "Supply keys for claims, and destroy them. The first one is used."
)
delegation_sources: Registry[DelegationSource] = Registry(
    "Find the account for which a user acts. The first answer counts."
)
"""`delegation_sources.register(source)` adds a function `source(user, session, request)`, in
`AppConfig.ready()` of a project. It returns the primary key of the account for which the user acts,
as text, or an empty text. Each event then has it as `on_behalf_of`.
"""
disclosure_observers: Registry[DisclosureObserver] = Registry(
    "Act before the event of a disclosure to a user is recorded."
)
event_queues: Registry[EventQueue] = Registry(
    "Hold events of this machine while the audit log is unavailable."
)
event_readers: Registry[EventReader] = Registry(
    "Process events one by one, and set those aside that fail."
)
event_words: Registry[EventWords] = Registry(
    "Supply labels and texts for events, on the pages of the audit log."
)
foreign_session_observers: Registry[ForeignSessionObserver] = Registry(
    "Act before a Django session without an OIDC session is deleted."
)
local_account_sources: Registry[LocalAccountSource] = Registry(
    "Declare accounts that sign in with a password while the provider is unavailable."
)
metadata_needs: Registry[MetadataNeed] = Registry(
    "Return the members of a provider's metadata that an app needs."
)
metadata_sources: Registry[MetadataSource] = Registry(
    "Fetch the metadata and keys of a provider in place of OIDC Discovery."
)
own_resource_rules: Registry[OwnResourceRule] = Registry(
    "Recognize resources that are about the user."
)
person_directories: Registry[PersonDirectory] = Registry(
    "Find the people that events name. The first one is used."
)
refused_sign_in_handlers: Registry[RefusedSignInHandler] = Registry(
    "Act on a sign-in that is refused, and offer a page on which the person can go on."
)
retention_guards: Registry[RetentionGuard] = Registry("Preserve claims of persons from erasure.")
role_sources: Registry[RoleSource] = Registry(
    "Change groups and flags of an account at a sign-in, before its session begins."
)
sign_in_demands: Registry[SignInDemand] = Registry(
    "Demand a new sign-in before the next guarded page."
)
sign_in_observers: Registry[SignInObserver] = Registry(
    "Act in the transaction of a sign-in, and add to its Django session."
)
