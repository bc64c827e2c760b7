"""An activation code is spent, and the person who knew it linked to the account that it was made for: both, or none."""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..config.providers import ProviderDeclaration
from ..crypto.keyring import SymmetricKey
from ..errors import ActivationRefused, SubjectTaken
from ..subjects.activation_codes import parse_code
from ..subjects.identifiers import compute_activation_digest
from ..subjects.linking import link_existing_user
from ..subjects.models import ActivationCode, PairwiseSubject


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
    """Link the person whom provider knows as sub to the user of the code, and return the subject.

    Of many at once, with whichever subs, one has the code. A refusal takes the same statements whatever its reason:
    `unknown`, `expired`, `redeemed`, `revoked`, or `user_inactive`; only `subject_taken` comes after a code that fits.
    Raises: ActivationRefused, and then the code is as it was; SubjectKeyMissing, SubInvalid, SubNotPairwise.
    """
    code = parse_code(code_text)
    digests = [compute_activation_digest(key.material, issuer=provider.issuer, code=code) for key in keys]
    with transaction.atomic():
        codes = ActivationCode.objects.filter(provider=provider.name, digest__in=digests)
        # First, and by one statement: whoever comes with the same code meanwhile waits here, and finds it spent.
        spent = codes.redeemable(now=now).update(redeemed_at=now)
        found = codes.select_related("user").first()
        if found is None:
            raise ActivationRefused("unknown")
        if not spent:
            raise ActivationRefused(_get_refusal_reason(found), user=found.user_id)
        if not found.user.is_active:
            raise ActivationRefused("user_inactive", user=found.user_id)
        try:
            subject = link_existing_user(found.user, sub=sub, provider=provider, keys=keys, origin=origin, now=now)
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


def _get_refusal_reason(code: ActivationCode) -> str:
    if code.redeemed_at is not None:
        return "redeemed"
    return "revoked" if code.revoked_at is not None else "expired"
