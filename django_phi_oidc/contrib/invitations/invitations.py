"""Invitations: activation codes for users. A code is shown once, redeemed once, and revoked by the
next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils.translation import gettext_noop
from django.views.decorators.debug import sensitive_variables

from ...audit.events import Action, NewEvent, Origin
from ...audit.outbox import enqueue_many
from ...config.providers import ProviderDeclaration
from ...crypto.keyring import SymmetricKey
from ...subjects.identifiers import compute_activation_binding, compute_activation_digest
from ...subjects.models import PairwiseSubject
from ..common.privileges import (
    SUPERUSER,
    has_more_privileges,
    list_privileges,
    list_privileges_of_all,
)
from .activation_codes import create_code, format_code
from .errors import InvitationRefused
from .models import ActivationCode, ActivationCodeQuerySet

LINK_PERMISSION = "django_phi_oidc.add_pairwisesubject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An invitation with its code, which is not stored and cannot be shown again."""

    user_id: Any
    code: str = field(repr=False)
    """With separators."""
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
    """Create a code for each user, in their order, or for none, and revoke the previous ones.

    user_ids: primary keys without duplicates. key: the newest subject key. One transaction, with an
    event for each.
    Raises: InvitationRefused, if the provider accepts no codes, or a user does not exist or is
    deactivated.
    """
    validate_accepts_codes(provider)
    with transaction.atomic():
        # Lock in a fixed order, so that two concurrent calls for the same users do not deadlock.
        users = get_user_model()._base_manager.select_for_update(no_key=True, of=("self",))
        users_by_id = {user.pk: user for user in users.filter(pk__in=user_ids).order_by("pk")}
        validate_users(user_ids, users_by_id)
        previous = ActivationCode.objects.filter(user__in=user_ids, provider=provider.name)
        revoke_activation_codes(previous, reason="reissued", origin=origin, now=now)
        privileges = list_privileges_of_all(users_by_id)
        codes = {pk: create_code() for pk in user_ids}
        expires_at = now + lifetime
        rows = []
        for pk, code in codes.items():
            row = _create_row(
                pk,
                code,
                privileges[pk],
                issuer=provider.issuer,
                key=key,
                provider=provider.name,
                created_at=now,
                created_by=origin.actor,
                expires_at=expires_at,
            )
            rows.append(row)
        ActivationCode.objects.bulk_create(rows)
        events = []
        for pk in user_ids:
            event = NewEvent(
                action=Action.ACTIVATION_ISSUED,
                origin=origin,
                now=now,
                provider=provider.name,
                resource=f"user/{pk}",
                detail={"until": expires_at.isoformat(timespec="seconds")},
            )
            events.append(event)
        enqueue_many(events)
    return [
        Invitation(user_id=pk, code=format_code(code), expires_at=expires_at)
        for pk, code in codes.items()
    ]


def revoke_activation_codes(
    codes: ActivationCodeQuerySet, *, reason: str, origin: Origin, now: datetime
) -> int:
    """Revoke the unused codes, in one transaction, and return how many were not expired. Each of
    those has an event.
    """
    with transaction.atomic():
        locked = codes.unused().order_by("pk").select_for_update()
        rows = list(locked.values_list("pk", "user", "provider", "expires_at"))
        ActivationCode.objects.filter(pk__in=[pk for pk, *_ in rows]).update(revoked_at=now)
        events = []
        for _, user, provider, expires_at in rows:
            if expires_at > now:
                events.append(
                    NewEvent(
                        provider=provider,
                        resource=f"user/{user}",
                        detail={},
                        action=Action.ACTIVATION_REVOKED,
                        origin=origin,
                        now=now,
                        reason=reason,
                    )
                )
        enqueue_many(events)
    return len(events)


@sensitive_variables()
def _create_row(
    user_pk: Any,
    code: str,
    privileges: Sequence[str],
    *,
    issuer: str,
    key: SymmetricKey,
    **fields: Any,
) -> ActivationCode:
    digest = compute_activation_digest(key.material, issuer=issuer, code=code)
    binding = compute_activation_binding(
        key.material, activation_digest=digest, user_pk=str(user_pk), privileges=privileges
    )
    return ActivationCode(
        user_id=user_pk,
        key_id=key.id,
        digest=digest,
        privileges=privileges,
        binding=binding,
        **fields,
    )


def validate_accepts_codes(provider: ProviderDeclaration) -> None:
    """Raises: InvitationRefused."""
    if provider.provisioning != "invitation":
        raise InvitationRefused(
            gettext_noop(
                "Provider %(provider)s accepts no activation codes: "
                "its provisioning is %(provisioning)s."
            ),
            provider=provider.name,
            provisioning=provider.provisioning,
        )


def validate_users(user_ids: Sequence[Any], users_by_id: dict[Any, Any]) -> None:
    """Raises: InvitationRefused for the first user that is missing or deactivated."""
    for pk in user_ids:
        if pk not in users_by_id:
            raise InvitationRefused(gettext_noop("There is no user %(user)s."), user=pk)
        if not users_by_id[pk].is_active:
            raise InvitationRefused(gettext_noop("User %(user)s is deactivated."), user=pk)


def have_privileges_grown(user: Any, code: ActivationCode) -> bool:
    """Return whether user has privileges now that the user lacked when the code was created."""
    known = {*code.privileges}
    return SUPERUSER not in known and not {*list_privileges(user)} <= known


def can_invite(actor: Any, user: Any) -> bool:
    """Return whether actor may create an activation code for user. NOT checked: the permission to
    create codes.

    A second link gives another person access to an existing record, so it requires the permission
    to link, too.
    """
    if has_more_privileges(user, actor):
        return False
    return (
        bool(actor.has_perm(LINK_PERMISSION))
        or not PairwiseSubject.objects.filter(user=user.pk).exists()
    )
