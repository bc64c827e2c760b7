"""The tables of the audit log, of the Merkle log over it, and their queues. The first two are
append-only.
"""

from typing import Any, ClassVar, NoReturn, Self

from django.core.exceptions import FieldError
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

# Django looks for all models of the app here.
from .log.models import ArchiveFile as ArchiveFile  # noqa: PLC0414 -- explicit re-exports
from .log.models import Cosignature as Cosignature  # noqa: PLC0414
from .log.models import LogWitness as LogWitness  # noqa: PLC0414
from .portal_tables import PortalTable

TEXT_END_LENGTH = 7
"""With the byte of the length, eight bytes: one character more would take eight bytes more."""


class AppendOnlyError(FieldError):
    """Audit tables are append-only."""


def _raise_append_only(*args: Any, **kwargs: Any) -> NoReturn:
    raise AppendOnlyError("Audit events are never changed or deleted.")


class AppendOnlyQuerySet(models.QuerySet[Any]):
    """Reads and inserts only. The database triggers refuse everything else as well."""

    update = delete = bulk_update = update_or_create = _raise_append_only
    aupdate = adelete = abulk_update = aupdate_or_create = _raise_append_only


class AppendOnlyModel(models.Model):
    """A row that is inserted and then only read."""

    objects: ClassVar[models.Manager[Self]] = AppendOnlyQuerySet.as_manager()

    class Meta:
        abstract = True
        base_manager_name = "objects"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            _raise_append_only()
        kwargs["force_insert"] = True
        super().save(*args, **kwargs)

    delete = _raise_append_only


def get_text_end(column: str | models.OuterRef) -> models.Func:
    """Return the last TEXT_END_LENGTH characters of a column of texts, which for a UUID are random.

    An index of them is half as large as one of the texts. A query must also compare the text
    itself. So only for columns whose texts have random ends: of others, a query would read all rows
    with the same one.
    """
    template = f"SUBSTR(%(expressions)s, LENGTH(%(expressions)s) - {TEXT_END_LENGTH - 1})"
    return models.Func(column, template=template, output_field=models.CharField())


def match_text_end(name: str, value: str) -> tuple[models.F | models.Func, str, Q]:
    """Return what the index of a column's ends has, what it is for a value, and the condition for
    the value itself.

    The condition is a CASE, which PostgreSQL expects to be true for half of the rows. With `=` it
    may expect few rows, and sort all events of a user with many of them, instead of reading a page
    in the order of the index.
    """
    is_value = Q(models.Case(models.When(**{name: value}, then=True), default=False))
    return get_text_end(name), value[-TEXT_END_LENGTH:], is_value


class AuditEvent(AppendOnlyModel):
    """One security-relevant event. No foreign keys: deleting a user changes nothing here."""

    id = models.UUIDField(primary_key=True, editable=False)
    """UUIDv7: sorts by time."""
    v = models.PositiveSmallIntegerField()
    mac_key = models.CharField(max_length=8)
    occurred_at = models.DateTimeField()
    action = models.CharField(max_length=256)
    outcome = models.CharField(max_length=8)
    actor = models.CharField(max_length=256, blank=True)
    on_behalf_of = models.CharField(max_length=256, blank=True)
    subject = models.CharField(max_length=256, blank=True)
    provider = models.CharField(max_length=256, blank=True)
    session = models.CharField(max_length=256, blank=True)
    client_ip = models.CharField(max_length=256, blank=True)
    purpose = models.CharField(max_length=256, blank=True)
    resource = models.CharField(max_length=256, blank=True)
    reason = models.CharField(max_length=256, blank=True)
    request_id = models.CharField(max_length=256, blank=True)
    detail = models.TextField(blank=True)
    """Canonical JSON text of a flat object."""
    mac = models.BinaryField(max_length=32)

    class Meta(AppendOnlyModel.Meta):
        verbose_name = _("audit event")
        verbose_name_plural = _("audit events")
        ordering = ("id",)
        default_permissions = ("view",)
        permissions = (
            ("export_auditevent", gettext_noop("Can export audit events")),
            ("lookup_auditevent", gettext_noop("Can look up the reference of a refusal")),
        )
        # Every event pays for each index, so the indexes leave out empty values and the most
        # frequent outcome.
        indexes = (
            models.Index(fields=["action", "id"], name="phi_oidc_audit_action"),
            models.Index(
                fields=["actor", "id"], name="phi_oidc_audit_actor", condition=Q(actor__gt="")
            ),
            models.Index(
                fields=["on_behalf_of", "id"],
                name="phi_oidc_audit_on_behalf_of",
                condition=Q(on_behalf_of__gt=""),
            ),
            models.Index(
                get_text_end("subject"),
                "id",
                name="phi_oidc_audit_subject_end",
                condition=Q(subject__gt=""),
            ),
            models.Index(
                fields=["resource", "id"],
                name="phi_oidc_audit_resource",
                condition=Q(resource__gt=""),
            ),
            models.Index(
                get_text_end("session"),
                "id",
                name="phi_oidc_audit_session_end",
                condition=Q(session__gt=""),
            ),
            # "error" and "failure" sort before "success".
            models.Index(
                fields=["outcome", "id"],
                name="phi_oidc_audit_outcome",
                condition=Q(outcome__lt="success"),
            ),
        )

    def __str__(self) -> str:
        return f"{self.action} {self.id}"


class AuditUnsealed(models.Model):
    """An event that has no leaf yet. A trigger of the event table inserts this row, regardless of
    the writer.
    """

    event_id = models.UUIDField(primary_key=True, editable=False)
    refused = models.BooleanField(db_default=False)
    """Its MAC is invalid: an alert was raised once, and it is not sealed."""

    class Meta:
        verbose_name = _("unsealed event")
        verbose_name_plural = _("unsealed events")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.event_id)


class AuditLeaf(AppendOnlyModel):
    """The position of an event in the log. Spec: RFC 6962 2.1."""

    leaf_index = models.BigIntegerField(primary_key=True, editable=False)
    event_id = models.UUIDField(unique=True)
    leaf_hash = models.BinaryField(max_length=32)
    """Over the event's canonical bytes."""

    class Meta(AppendOnlyModel.Meta):
        verbose_name = _("leaf of the log")
        verbose_name_plural = _("leaves of the log")
        ordering = ("leaf_index",)
        default_permissions = ()
        constraints = (
            models.CheckConstraint(condition=Q(leaf_index__gte=0), name="phi_oidc_auditleaf_index"),
        )

    def __str__(self) -> str:
        return f"{self.leaf_index} {self.event_id}"


class AuditNode(AppendOnlyModel):
    """The root of a perfect subtree of 256 leaves, or of 256 smaller ones, stored so that a proof
    reads few rows.
    """

    pk = models.CompositePrimaryKey("level", "node_index")
    level = models.PositiveSmallIntegerField()
    """The subtree has 2**level leaves: 8, 16, 24 …"""
    node_index = models.BigIntegerField()
    """Its first leaf is node_index * 2**level."""
    node_hash = models.BinaryField(max_length=32)

    class Meta(AppendOnlyModel.Meta):
        verbose_name = _("node of the log")
        verbose_name_plural = _("nodes of the log")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.level}/{self.node_index}"


class AuditCheckpoint(AppendOnlyModel):
    """A signed checkpoint of the log at tree_size leaves. The note is authoritative, the other
    fields are copies.
    """

    tree_size = models.BigIntegerField(primary_key=True, editable=False)
    root_hash = models.BinaryField(max_length=32)
    epoch = models.PositiveIntegerField()
    """1, and one more after each `audit resume`."""
    sealed_at = models.DateTimeField()
    note = models.TextField()
    """C2SP tlog-checkpoint, signed."""

    class Meta(AppendOnlyModel.Meta):
        verbose_name = _("audit checkpoint")
        verbose_name_plural = _("audit checkpoints")
        ordering = ("tree_size",)
        default_permissions = ("view",)
        constraints = (
            models.CheckConstraint(
                condition=Q(tree_size__gt=0), name="phi_oidc_auditcheckpoint_size"
            ),
        )

    def __str__(self) -> str:
        return str(self.tree_size)


class AuditOutbox(PortalTable):
    """An authenticated event, committed with the change that it records, to be moved to the audit
    log.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    """The event's own id."""
    event = models.TextField()
    """The event's canonical JSON text with its MAC; while the MAC keys are missing, with a proof of
    the process that wrote it.
    """

    class Meta:
        verbose_name = _("event in the outbox")
        verbose_name_plural = _("events in the outbox")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.id)


class SetAsideEvent(PortalTable):
    """An event that a reader could not process, and goes on without."""

    event_id = models.UUIDField(_("event"), editable=False)
    reader = models.CharField(_("reader"), max_length=128, editable=False)
    """`outbox`, or the kind of a reader and a name: `rule:replay`, `sink:collector`."""
    error = models.CharField(_("error"), max_length=64, editable=False)
    """The class of the exception, or a code."""
    set_aside_at = models.DateTimeField(_("set aside at"), editable=False)
    tried_at = models.DateTimeField(_("last tried at"), editable=False)

    class Meta:
        verbose_name = _("event set aside")
        verbose_name_plural = _("events set aside")
        default_permissions = ("view",)
        constraints = (
            models.UniqueConstraint(
                fields=["reader", "event_id"], name="phi_oidc_setasideevent_unique"
            ),
        )

    def __str__(self) -> str:
        return str(self.event_id)


class AuditWitness(PortalTable):
    """The largest checkpoint of an origin known outside the database. The sequencer signs nothing
    smaller.
    """

    origin = models.CharField(primary_key=True, max_length=255, editable=False)
    note = models.TextField()

    class Meta:
        verbose_name = _("witnessed checkpoint")
        verbose_name_plural = _("witnessed checkpoints")
        default_permissions = ()

    def __str__(self) -> str:
        return self.origin


class VerificationRecord(PortalTable):
    """How far the log was verified, signed with its key: without the key, a row can be removed, but
    not written.
    """

    name = models.CharField(primary_key=True, max_length=16, editable=False)
    """`log` for the newest verified checkpoint, `schedule` for the position of the task."""
    note = models.TextField()

    class Meta:
        verbose_name = _("verification record")
        verbose_name_plural = _("verification records")
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class RefusalCount(PortalTable):
    """The number of refusals of one kind in one minute that cost their sender nothing."""

    minute = models.DateTimeField()
    reason = models.CharField(max_length=64)
    """Empty: the total of refusals with an event of their own in that minute."""
    network = models.CharField(max_length=64)
    """The sender's IPv4 address or IPv6 /64; empty: any sender, after the minute had all its
    events.
    """
    count = models.PositiveBigIntegerField()

    class Meta:
        verbose_name = _("refusal count")
        verbose_name_plural = _("refusal counts")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["minute", "reason", "network"], name="phi_oidc_refusalcount_unique"
            ),
        )

    def __str__(self) -> str:
        return f"{self.minute} {self.reason} {self.network}"


class RecordedConfiguration(PortalTable):
    """A configuration that a process of a component had. The one with the largest number is the
    newest.
    """

    component = models.CharField(max_length=64)
    digest = models.CharField(max_length=64)
    """SHA-256, hexadecimal."""
    content = models.TextField()
    """JSON: digests of the options, and warnings, to compare the next one with."""
    number = models.PositiveIntegerField(default=0)
    """Of its last event: 1, 2, 3 … in a component."""
    seen_at = models.DateTimeField()
    """When a process last had it."""

    class Meta:
        verbose_name = _("recorded configuration")
        verbose_name_plural = _("recorded configurations")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["component", "digest"], name="phi_oidc_configuration_unique"
            ),
        )

    def __str__(self) -> str:
        return f"{self.component} {self.digest[:8]}"
