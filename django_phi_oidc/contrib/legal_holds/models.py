"""Legal holds."""

from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from ..._internal import clock
from ...subjects.models import PairwiseSubject


def _set_null_and_protect_active_holds(collector: Any, field: Any, holds: Any, using: str) -> None:
    """Clear the key as SET_NULL does, and list active holds as protected objects on the admin's
    delete page.

    Only that page's collector has a set of protected objects, in any admin of the host. This is for
    information: the deletion itself is refused by the receiver that locks the row.
    """
    if hasattr(collector, "protected"):
        active = models.Q(until=None) | models.Q(until__gt=clock.now())
        rows = LegalHold.objects.using(using).filter(
            active, pk__in=[hold.pk for hold in holds], released_at=None
        )
        collector.protected.update(rows)
    models.SET_NULL(collector, field, holds, using)


class ProtectedHoldForeignKey(models.ForeignKey[Any, Any]):
    """A foreign key that the admin's delete page shows before it is cleared; for migrations an
    ordinary one.
    """

    def __init__(self, to: Any, on_delete: Any, **kwargs: Any) -> None:
        super().__init__(to, _set_null_and_protect_active_holds, **kwargs)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.ForeignKey", args, {**kwargs, "on_delete": models.SET_NULL}


class LegalHold(models.Model):
    """Preserves all claims of a person: while it is active, nothing erases them."""

    id = models.UUIDField(_("id"), primary_key=True, editable=False)
    subject = ProtectedHoldForeignKey(
        PairwiseSubject,
        verbose_name=_("subject"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="holds",
    )
    """None: erased after the hold ended."""
    reason = models.CharField(_("reason"), max_length=255)
    """Free text, such as a case number; not recorded in the audit log."""
    placed_at = models.DateTimeField(_("placed at"), editable=False)
    placed_by = models.CharField(_("placed by"), max_length=255, editable=False)
    """The actor: the user's primary key as text, or the operator of a command."""
    until = models.DateTimeField(_("until"), null=True, blank=True)
    """When it ends; None: when it is released."""
    released_at = models.DateTimeField(_("released at"), null=True, editable=False)
    released_by = models.CharField(_("released by"), max_length=255, default="", editable=False)
    suspended_until = models.DateTimeField(_("accounting suspended until"), null=True, blank=True)
    """Until when the accounting leaves out disclosures for `suspended_purposes`, while the hold is
    active; None: it leaves out none. Spec: 45 CFR 164.528(a)(2).
    """
    suspended_purposes = models.JSONField(
        _("purposes of these disclosures"), default=list, blank=True
    )
    """A list of HL7 PurposeOfUse codes."""
    agency = models.CharField(_("agency or official"), max_length=255, blank=True)
    """Who stated that the accounting would impede its activities."""
    oral_statement_at = models.DateTimeField(_("oral statement of"), null=True, blank=True)
    """When this was stated orally; None: in writing."""

    class Meta:
        app_label = "phi_oidc_legal_holds"
        verbose_name = _("legal hold")
        verbose_name_plural = _("legal holds")
        default_permissions = ("view", "add", "change")
        permissions = (("disclose_legalhold", gettext_noop("Can see what a legal hold keeps")),)

    def __str__(self) -> str:
        return str(self.id)
