"""An activation code is spent, and the person who knew it linked to the account that it was made for: both, or none."""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..declarations import ProviderDeclaration
from ..errors import ActivationRefused, SubjectTaken
from ..keyring import Key
from ..subjects.codes import read_code
from ..subjects.digest import activation_digest
from ..subjects.linking import link_existing
from ..subjects.models import ActivationCode, PairwiseSubject


@sensitive_variables()
def redeem(
    typed: str, *, sub: str, provider: ProviderDeclaration, keys: Sequence[Key], origin: Origin, now: datetime
) -> PairwiseSubject:
    """Link the person whom provider knows as sub to the user of the code, and return the subject.

    Of many at once, with whichever subs, one has the code. A refusal takes the same statements whatever its reason:
    `unknown`, `expired`, `redeemed`, `revoked`, or `user_inactive`; only `subject_taken` comes after a code that fits.
    Raises: ActivationRefused, and then the code is as it was; SubjectKeyMissing, SubInvalid, SubNotPairwise.
    """
    code = read_code(typed)
    digests = [activation_digest(key.material, issuer=provider.issuer, code=code) for key in keys]
    with transaction.atomic():
        codes = ActivationCode.objects.filter(provider=provider.name, digest__in=digests)
        # First, and by one statement: whoever comes with the same code meanwhile waits here, and finds it spent.
        spent = codes.waiting(now=now).update(redeemed_at=now)
        found = codes.select_related("user").first()
        if found is None:
            raise ActivationRefused("unknown")
        if not spent:
            raise ActivationRefused(_why_not(found), user=found.user_id)
        if not found.user.is_active:
            raise ActivationRefused("user_inactive", user=found.user_id)
        try:
            subject = link_existing(found.user, sub=sub, provider=provider, keys=keys, origin=origin, now=now)
        except SubjectTaken as fault:
            raise ActivationRefused(fault.code, user=found.user_id) from fault
        enqueue(
            Action.ACTIVATION_REDEEMED,
            origin=origin,
            now=now,
            subject=str(subject.uuid),
            provider=provider.name,
            resource=f"user/{found.user_id}",
        )
    return subject


def _why_not(code: ActivationCode) -> str:
    if code.redeemed_at is not None:
        return "redeemed"
    return "revoked" if code.revoked_at is not None else "expired"
