"""The existing account of a first sign-in, by its verified e-mail address, if the provider's
declaration permits it.

An e-mail address is a weak identifier: addresses are assigned again, and local accounts may have an
address that their owner never proved. So each rule below refuses, and the link is made once for an
account. Spec: OIDC Core 5.7.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from typing import Any, ClassVar

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist
from django.db.models import DateTimeField
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...audit.events import Action
from ...audit.outbox import list_waiting_events
from ...audit.search import EventQuery, list_events_of_query
from ...audit.storage import get_resource_pseudonym
from ...config.providers import ProviderDeclaration
from ...errors import EmailMatchRefused
from ...extensions import account_observers
from ...subjects.local_accounts import is_local_account
from ...subjects.models import PairwiseSubject
from ..common.privileges import list_privileges
from .declaration import EmailLinkingDeclaration

CREATION_FIELD = "date_joined"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailMatch:
    """The verified e-mail address of a first sign-in. Only `find_verified_email` may have returned
    the address.
    """

    method: ClassVar[str] = "verified_email"

    address: str = field(repr=False)
    provider: ProviderDeclaration
    now: datetime

    @sensitive_variables()
    def find_user_id(self) -> Any:
        """Return the primary key of the account with that address, which `get_locked_user` checks,
        or None.

        Raises: EmailMatchRefused, if several accounts have it, or the audit log has an earlier link
        of the account; AuditUnavailable.
        """
        linking = self.provider.find_option(EmailLinkingDeclaration)
        if linking is None or not linking.is_in_force(self.now):
            return None
        user_ids = self._list_user_ids()
        if len(user_ids) > 1:
            raise EmailMatchRefused("ambiguous")
        if user_ids and self._has_been_linked(user_ids[0]):
            raise EmailMatchRefused("linked_before")

        if user_ids:
            return user_ids[0]
        return None

    @sensitive_variables()
    def get_locked_user(self, user_id: Any) -> Any:
        """Return the account, locked until the end of the transaction, without its password.

        The person who knows the password may be another one than the one who has proved to own the
        address, so it becomes unusable. That also ends the sessions of the account, because Django
        compares the password's digest.
        Raises: EmailMatchRefused, also if another transaction has changed the account or linked it
        in the meantime.
        """
        # A link by an administrator locks the account, too. A code that is being redeemed is still
        # seen as unused.
        users = get_user_model()._base_manager.select_for_update(no_key=True, of=("self",))
        user = users.filter(pk=user_id).first()
        if user is None or self._list_user_ids() != [user_id]:
            raise EmailMatchRefused("ambiguous")
        if refusal := next(self._iter_refusals(user), ""):
            raise EmailMatchRefused(refusal)
        user.set_unusable_password()
        user.save(update_fields=["password"])
        return user

    def _list_user_ids(self) -> list[Any]:
        """Return the accounts with that address, active or not. Case is ignored in ASCII addresses
        only.

        Databases and Python fold other letters differently: to PostgreSQL, a dotless i may be an i.
        """
        user_model: Any = get_user_model()
        is_comparable = self.address.isascii() and self.address.isprintable()
        if not is_comparable or not has_required_fields(user_model):
            return []
        name = user_model.get_email_field_name()
        rows = (
            user_model._base_manager.filter(**{f"{name}__iexact": self.address})
            .order_by("pk")
            .values_list("pk", name)
        )
        user_ids = []
        for pk, address in rows:
            if address.isascii() and address.lower() == self.address.lower():
                user_ids.append(pk)
        return user_ids

    def _iter_refusals(self, user: Any) -> Iterator[str]:
        declared: Any = self.provider.find_option(EmailLinkingDeclaration)
        first_day = datetime.combine(declared.accounts_created_before, time(), UTC)
        created_at = getattr(user, CREATION_FIELD)
        if not getattr(user, "is_active", True):
            yield "inactive"
        if list_privileges(user) or is_local_account(user):
            yield "privileged"
        if created_at is None or created_at >= first_day:
            yield "created_later"
        # A person of another provider could still sign in, and would share the account with the
        # owner of the address.
        issuers = {self.provider.issuer}
        for provider in conf.providers().values():
            issuers.add(provider.issuer)
        if PairwiseSubject.objects.filter(user=user.pk, issuer__in=issuers).exists():
            yield "linked"
        # An invitation is the stronger proof, and its letter may have gone to another person than
        # the owner of the address.
        if any(
            observer.is_invited(user.pk, provider=self.provider.name, now=self.now)
            for observer in account_observers
        ):
            yield "invited"

    def _has_been_linked(self, user_id: Any) -> bool:
        """Return whether the account had a link at this provider that was removed since."""
        resource = f"user/{user_id}"
        resources = [resource, get_resource_pseudonym(resource)]
        # First the outbox: an event that moves to the audit log in the meantime is found there.
        providers = set()
        for event in list_waiting_events(Action.SUBJECT_LINKED):
            if event.resource in resources:
                providers.add(event.provider)

        query = EventQuery(actions=[Action.SUBJECT_LINKED], resources=resources)
        for row in list_events_of_query(query).rows:
            providers.add(row.provider)
        return self.provider.name in providers


def has_required_fields(user_model: Any) -> bool:
    """Return whether accounts have an e-mail address and a time of creation."""
    try:
        user_model._meta.get_field(user_model.get_email_field_name())
        return isinstance(user_model._meta.get_field(CREATION_FIELD), DateTimeField)
    except (AttributeError, FieldDoesNotExist):
        return False
