"""Invitations: a code for an account, shown once, redeemed once, revoked by the next one. Only its digest is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils.translation import gettext_noop
from django.views.decorators.debug import sensitive_variables

from ..audit.events import Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..config.providers import ProviderDeclaration
from ..crypto.keyring import SymmetricKey
from ..errors import InvitationRefused
from .activation_codes import create_code, format_code
from .identifiers import compute_activation_digest
from .models import ActivationCode, ActivationCodeQuerySet


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What is given out once, and can't be had again."""

    user_id: Any
    """The primary key."""
    code: str = field(repr=False)
    """As it is shown."""
    expires_at: datetime


@sensitive_variables()
def create_invitations(
    user_ids: Sequence[Any],
    *,
    provider: ProviderDeclaration,
    key: SymmetricKey,
    lifetime: timedelta,
    origin: Origin,
    now: datetime,
) -> list[Invitation]:
    """Return a new code for each of these users, in their order, or make none; the former ones are revoked.

    users: primary keys, each once. One transaction, with an event for each code. key: of the subject keys, the newest.
    Raises: InvitationRefused, where the provider takes no codes, or a user is gone or deactivated.
    """
    validate_accepts_codes(provider)
    with transaction.atomic():
        # In one order, so that two who invite the same users do not wait for each other.
        held = get_user_model()._base_manager.select_for_update(no_key=True, of=("self",))
        validate_users(user_ids, {user.pk: user for user in held.filter(pk__in=user_ids).order_by("pk")})
        former = ActivationCode.objects.filter(user__in=user_ids, provider=provider.name)
        revoke_activation_codes(former, reason="reissued", origin=origin, now=now)
        codes = {pk: create_code() for pk in user_ids}
        expires_at = now + lifetime
        ActivationCode.objects.bulk_create(
            ActivationCode(
                user_id=pk,
                provider=provider.name,
                key_id=key.id,
                digest=compute_activation_digest(key.material, issuer=provider.issuer, code=code),
                created_at=now,
                created_by=origin.actor,
                expires_at=expires_at,
            )
            for pk, code in codes.items()
        )
        until = expires_at.isoformat(timespec="seconds")
        enqueue_many(
            [
                _create_event(Action.ACTIVATION_ISSUED, pk, provider.name, origin, now, detail={"until": until})
                for pk in user_ids
            ]
        )
    return [Invitation(user_id=pk, code=format_code(code), expires_at=expires_at) for pk, code in codes.items()]


def revoke_activation_codes(codes: ActivationCodeQuerySet, *, reason: str, origin: Origin, now: datetime) -> int:
    """Revoke those of codes that nobody has redeemed, in one transaction; return how many could still have been.

    Each of these has an event with that reason.
    """
    with transaction.atomic():
        held = codes.unused().order_by("pk").select_for_update()
        waiting = list(held.values_list("pk", "user", "provider", "expires_at"))
        ActivationCode.objects.filter(pk__in=[pk for pk, *_ in waiting]).update(revoked_at=now)
        live = [(user, provider) for _, user, provider, expires_at in waiting if expires_at > now]
        enqueue_many(
            [
                _create_event(Action.ACTIVATION_REVOKED, user, provider, origin, now, reason=reason, detail={})
                for user, provider in live
            ]
        )
    return len(live)


def validate_accepts_codes(provider: ProviderDeclaration) -> None:
    """Raises: InvitationRefused where nobody would ask for a code."""
    if provider.provisioning != "invitation":
        raise InvitationRefused(
            gettext_noop("Provider %(provider)s takes no activation codes: its provisioning is %(provisioning)s."),
            provider=provider.name,
            provisioning=provider.provisioning,
        )


def validate_users(user_ids: Sequence[Any], users_by_id: dict[Any, Any]) -> None:
    """Raises: InvitationRefused for the first of users who is not among found, by primary key, or is deactivated."""
    for pk in user_ids:
        if pk not in users_by_id:
            raise InvitationRefused(gettext_noop("There is no user %(user)s."), user=pk)
        if not users_by_id[pk].is_active:
            raise InvitationRefused(gettext_noop("User %(user)s is deactivated."), user=pk)


def has_more_privileges(user: Any, actor: Any) -> bool:
    """Say whether person may do what actor may not, as a superuser or of the staff: who invites them could become them.

    What patients may do on the portal's pages does not count, or nobody of the staff could invite them.
    """
    if getattr(actor, "is_superuser", False):
        return False
    if getattr(user, "is_superuser", False):
        return True
    return bool(getattr(user, "is_staff", False)) and not user.get_all_permissions() <= actor.get_all_permissions()


def _create_event(
    action: Action, user_id: Any, provider: str, origin: Origin, now: datetime, **event_fields: Any
) -> NewEvent:
    return NewEvent(
        action=action, origin=origin, now=now, provider=provider, resource=f"user/{user_id}", **event_fields
    )
