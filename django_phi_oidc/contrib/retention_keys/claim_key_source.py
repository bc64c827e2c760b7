"""Retention keys as the keys of claims: see `extensions.ClaimKeySource`."""

import hmac
import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Literal, cast

from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from ..._internal import randomness
from ...claims.models import StoredClaim
from ...crypto.claim_keys import HOLD_PREFIX, KeyCache
from ...subjects.models import PairwiseSubject
from .key_destruction import count_unused_keys, destroy_unused_keys
from .key_names import NAME_SEPARATOR, join_names, retention_key_name
from .key_store import get_store, is_enabled
from .key_summary import RetentionKeySummary, create_key_summary
from .models import UnusedPersonKey


class RetentionKeySource:
    """The source of keys of this app: see `extensions.ClaimKeySource`."""

    def is_enabled(self) -> bool:
        return is_enabled()

    def name_day_key(self, obtained_at: datetime, retention: timedelta | Literal["session"]) -> str:
        return retention_key_name(obtained_at, retention)

    def join_names(self, bucket: str, person_key_id: uuid.UUID) -> str:
        return join_names(bucket, person_key_id)

    def find_key(self, names: str, *, cache: KeyCache | None = None) -> bytes | None:
        return _combine_keys(names, get_store().get, cache)

    def get_or_create_key(self, names: str, *, cache: KeyCache | None = None) -> bytes:
        return cast(bytes, _combine_keys(names, get_store().create, cache))

    def replace_person_keys(
        self, subjects: Sequence[PairwiseSubject], *, held_claims: Collection[int] = ()
    ) -> None:
        """Mark the keys of these subjects as unused. A later sign-in uses a new one.

        This is also done without claims: a backup may have claims of the person that were erased
        for another reason.
        """
        # Held claims have the key of the hold, except claims that could not be decrypted when the
        # hold was placed.
        preserved = StoredClaim.objects.filter(pk__in=held_claims).exclude(
            bucket__startswith=HOLD_PREFIX
        )
        kept = set(preserved.values_list("subject", flat=True))
        replaced = [subject for subject in subjects if subject.pk not in kept]
        unused = [
            UnusedPersonKey(id=subject.retention_key_id, subject_uuid=subject.uuid)
            for subject in replaced
        ]
        # After a restore, the key of a person may be marked again before it was destroyed.
        UnusedPersonKey.objects.bulk_create(unused, ignore_conflicts=True)
        for subject in replaced:
            subject.retention_key_id = randomness.uuid4()
        PairwiseSubject.objects.bulk_update(replaced, ["retention_key_id"])

    def count_unused_keys(self, *, now: datetime, due: Q) -> int:
        return count_unused_keys(now=now, due=due)

    def destroy_unused_keys(self, *, now: datetime) -> list[str]:
        return destroy_unused_keys(now=now)

    def get_summary(self) -> RetentionKeySummary:
        return create_key_summary()


RETENTION_KEYS = RetentionKeySource()


@sensitive_variables()
def _combine_keys(
    names: str, load: Callable[[str], bytes | None], cache: KeyCache | None
) -> bytes | None:
    """Return the key for which all of the named keys are necessary; None if one of them was
    destroyed.

    Spec: NIST SP 800-133 Rev. 2, 6.3.
    """
    cache = {} if cache is None else cache
    keys = []
    for name in names.split(NAME_SEPARATOR):
        key = cache.get(name) or load(name)
        if key is None:
            return None
        cache[name] = key
        keys.append(key)

    if len(keys) == 1:
        return keys[0]
    return hmac.digest(b"django_phi_oidc retention", b"".join(keys), "sha256")
