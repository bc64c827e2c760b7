"""Redeem an activation code: mark it used, and link the person to its account, in one
transaction.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils.crypto import constant_time_compare
from django.views.decorators.debug import sensitive_variables

from ...audit.events import Action, Origin
from ...audit.outbox import enqueue
from ...config.providers import ProviderDeclaration
from ...crypto.keyring import SymmetricKey
from ...errors import SubjectTaken
from ...subjects.identifiers import compute_activation_binding, compute_activation_digest
from ...subjects.linking import link_existing_user
from ...subjects.models import PairwiseSubject
from .activation_codes import parse_code
from .errors import ActivationRefused
from .invitations import have_privileges_grown, revoke_activation_codes
from .models import ActivationCode

PRIVILEGES_GROWN = "privileges_grown"
ALTERED = "altered"


@sensitive_variables()
def redeem_code(
    code_text: str,
    *,
    sub: str,
    provider: ProviderDeclaration,
    keys: Sequence[SymmetricKey],
    origin: Origin,
    now: datetime,
) -> PairwiseSubject:
    """Link the person with that sub to the user of the code, and return the subject.

    Of concurrent requests, one redeems the code. Each refusal takes the same statements: `unknown`,
    `expired`, `redeemed`, `revoked`, `user_inactive`. Only `altered`, `privileges_grown` and
    `subject_taken` come after a correct code.
    Raises: ActivationRefused, with the code left unchanged, or revoked if the privileges of its
    user have grown; SubjectKeyMissing, SubInvalid, SubNotPairwise.
    """
    code = parse_code(code_text)
    digests = []
    for key in keys:
        digests.append(compute_activation_digest(key.material, issuer=provider.issuer, code=code))
    with _revoke_codes_of_grown_privileges(origin=origin, now=now), transaction.atomic():
        codes = ActivationCode.objects.filter(provider=provider.name, digest__in=digests)
        # The update comes first, in one statement: a concurrent request with the same code waits
        # here, then finds it redeemed.
        is_redeemed = codes.redeemable(now=now).update(redeemed_at=now)
        activation = codes.select_related("user").first()
        if activation is None:
            raise ActivationRefused("unknown")
        user = activation.user
        if not is_redeemed:
            if activation.redeemed_at:
                reason = "redeemed"
            elif activation.revoked_at:
                reason = "revoked"
            else:
                reason = "expired"
            raise ActivationRefused(reason, user=user.pk)
        if not user.is_active:
            raise ActivationRefused("user_inactive", user=user.pk)
        if not _is_bound(activation, keys):
            raise ActivationRefused(ALTERED, user=user.pk)
        if have_privileges_grown(user, activation):
            raise ActivationRefused(PRIVILEGES_GROWN, user=user.pk)
        try:
            subject = link_existing_user(
                user,
                sub=sub,
                provider=provider,
                keys=keys,
                origin=origin,
                now=now,
                is_code_locked=True,
            )
        except SubjectTaken as error:
            raise ActivationRefused(error.code, user=user.pk) from error
        enqueue(
            Action.ACTIVATION_REDEEMED,
            origin=origin,
            now=now,
            subject=str(subject.uuid),
            provider=provider.name,
            resource=f"user/{user.pk}",
        )
    return subject


@contextmanager
def _revoke_codes_of_grown_privileges(*, origin: Origin, now: datetime) -> Iterator[None]:
    """Revoke all codes of the user after the transaction in the block was rolled back for that
    reason.
    """
    try:
        yield
    except ActivationRefused as error:
        if error.reason == PRIVILEGES_GROWN:
            user_pk: Any = error.user
            codes = ActivationCode.objects.filter(user=user_pk)
            revoke_activation_codes(codes, reason=PRIVILEGES_GROWN, origin=origin, now=now)
        raise


def _is_bound(activation: ActivationCode, keys: Sequence[SymmetricKey]) -> bool:
    """Return whether the code was created for this user, with these privileges; not if the row was
    changed since.
    """
    if not isinstance(activation.privileges, list):
        return False
    privileges = [str(name) for name in activation.privileges]
    for key in keys:
        binding = compute_activation_binding(
            key.material,
            activation_digest=activation.digest,
            user_pk=str(activation.user_id),
            privileges=privileges,
        )
        if constant_time_compare(activation.binding, binding):
            return True
    return False
