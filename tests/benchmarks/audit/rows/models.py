"""Models of the contenders: one like AuditEvent, or one that another package audits."""

from typing import Any

from django.conf import settings
from django.db import models

CONTENDER = settings.CONTENDER

if CONTENDER not in settings.PEERS:
    from django_phi_oidc.audit.models import AuditEvent

    class _Meta:
        app_label = "rows"
        managed = False
        db_table = "bench_orm"

    Event: Any = type(
        "Event",
        (models.Model,),
        {
            **{field.name: field.clone() for field in AuditEvent._meta.concrete_fields},
            "Meta": _Meta,
            "__module__": __name__,
        },
    )
    """The columns of AuditEvent with the default manager of Django."""
else:

    class Reveal(models.Model):
        """A row whose creation is audited."""

        subject = models.CharField(max_length=256)
        purpose = models.CharField(max_length=256)
        claim = models.CharField(max_length=256)
        revealed_at = models.DateTimeField()

        def __str__(self) -> str:
            return self.claim

    if CONTENDER == "auditlog":
        from auditlog.registry import auditlog

        auditlog.register(Reveal)
    elif CONTENDER == "pghistory":
        import pghistory

        Reveal = pghistory.track()(Reveal)
