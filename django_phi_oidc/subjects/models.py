"""Who a person is here: (issuer, `sub`), of which only keyed digests are stored."""

from django.conf import settings
from django.db import models


class PairwiseSubject(models.Model):
    """One person as one issuer knows them."""

    uuid = models.UUIDField(unique=True, editable=False)
    """Opaque and local: the pseudonym in the audit trail."""
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="pairwise_subjects")
    issuer = models.CharField(max_length=255)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return str(self.uuid)


class SubjectDigest(models.Model):
    """HMAC-SHA256 of (issuer, `sub`) under one subject key; a subject has one for each configured key."""

    subject = models.ForeignKey(PairwiseSubject, on_delete=models.CASCADE, related_name="digests")
    issuer = models.CharField(max_length=255)
    key_id = models.CharField(max_length=8, db_index=True)
    digest = models.CharField(max_length=64)
    """Hexadecimal."""

    class Meta:
        constraints = (models.UniqueConstraint(fields=["issuer", "digest"], name="phi_oidc_subject_digest_unique"),)

    def __str__(self) -> str:
        return f"{self.key_id} {self.digest[:8]}"
