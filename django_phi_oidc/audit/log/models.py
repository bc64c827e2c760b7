"""The cosignatures of witnesses, the state of each witness, and the archives."""

from datetime import datetime

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..._internal.randomness import get_id_time
from ..portal_tables import PortalTable


class LogWitness(PortalTable):
    """What a declared witness has seen of the log."""

    name = models.CharField(primary_key=True, max_length=64, editable=False)
    """As declared in AUDIT['witnesses']."""
    origin = models.CharField(max_length=255, blank=True)
    """Of the last checkpoint that it cosigned; empty before the first."""
    tree_size = models.BigIntegerField(default=0)
    note = models.TextField(blank=True)
    """The note of that checkpoint, as the log signed it."""
    cosigned_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    """Since the last cosignature."""
    due_at = models.DateTimeField()
    """No earlier attempt after a fault."""
    last_fault = models.CharField(max_length=64, blank=True)
    """A code; empty after a cosignature."""
    failing_since = models.DateTimeField(null=True)
    alert_rule = models.CharField(max_length=64, blank=True)
    """Of the last alert about this witness."""
    alerted_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("witness of the audit log")
        verbose_name_plural = _("witnesses of the audit log")
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class Cosignature(PortalTable):
    """The signature of a witness for a checkpoint. It is verified each time that it is read.

    Spec: C2SP tlog-cosignature.
    """

    witness = models.CharField(max_length=64)
    """As declared in AUDIT['witnesses']."""
    origin = models.CharField(max_length=255)
    tree_size = models.BigIntegerField()
    note = models.TextField()
    """The checkpoint as the log signed it."""
    line = models.TextField()
    """The signature line of the witness, with its newline."""

    class Meta:
        verbose_name = _("cosignature")
        verbose_name_plural = _("cosignatures")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["tree_size", "origin", "witness"], name="phi_oidc_cosignature_unique"
            ),
        )

    def __str__(self) -> str:
        return f"{self.tree_size} {self.witness}"


class ArchiveFile(PortalTable):
    """An archive that was written. It is only a pointer to a file: the file proves what it
    contains.
    """

    sha256 = models.CharField(primary_key=True, max_length=64, editable=False)
    """Hexadecimal."""
    name = models.CharField(max_length=255)
    """Without a folder, when it was written."""
    first_leaf = models.BigIntegerField()
    tree_size = models.BigIntegerField()
    """It has the leaves from first_leaf on, and before this one."""
    first_id = models.UUIDField()
    """The lowest id of its events. An id begins with its time."""
    last_id = models.UUIDField()
    """The highest one."""
    restore_events = models.JSONField(default=list)
    """Its `audit.restored` events, which declare epochs: leaf index and canonical form. They are
    proved when used.
    """

    class Meta:
        verbose_name = _("archive of the audit log")
        verbose_name_plural = _("archives of the audit log")
        default_permissions = ()

    def __str__(self) -> str:
        return self.name

    @property
    def last_leaf(self) -> int:
        return self.tree_size - 1

    @property
    def since(self) -> datetime:
        return get_id_time(self.first_id)

    @property
    def until(self) -> datetime:
        return get_id_time(self.last_id)
