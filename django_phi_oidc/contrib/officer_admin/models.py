"""The hourly numbers that the charts of the overview are drawn from, and the jobs that end many
sessions.
"""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from ..._internal.lease import LeasedQuerySet


class HourlyCount(models.Model):
    """A number of one hour in UTC. Those of events can be counted again from the audit log."""

    objects: ClassVar[models.Manager["HourlyCount"]]

    day = models.DateField()
    hour = models.PositiveSmallIntegerField()
    series = models.CharField(max_length=16)
    """A `Series`."""
    label = models.CharField(max_length=256, blank=True)
    """Of a part of the series: the reason of refusals, the age group of claims. An hour without it
    has no such rows.
    """
    count = models.PositiveBigIntegerField()

    class Meta:
        app_label = "phi_oidc_officer_admin"
        verbose_name = _("hourly count")
        verbose_name_plural = _("hourly counts")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["day", "hour", "series", "label"], name="phi_oidc_hourlycount_unique"
            ),
        )

    def __str__(self) -> str:
        return f"{self.day} {self.hour}:00 {self.series} {self.label}"


class SessionEndJob(models.Model):
    """A request to end many sessions. A worker, or the page of the job, ends them in batches under
    a lease.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting for a worker")
        RUNNING = "running", _("running")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")

    id = models.UUIDField(primary_key=True, editable=False)
    """UUIDv7: sorts by the time of the request."""
    selection = models.JSONField(default=dict)
    """The fields of a SessionSelection."""
    requested_by = models.CharField(_("requested by"), max_length=256)
    """The actor of the events."""
    requested_at = models.DateTimeField(_("requested at"))
    client_ip = models.CharField(max_length=64, blank=True)
    """Of the request, for the events."""
    state = models.CharField(_("state"), max_length=8, choices=State, default=State.WAITING)
    attempts = models.PositiveIntegerField(default=0)
    """Also the fencing token: a worker with an older number writes nothing."""
    failures = models.PositiveSmallIntegerField(default=0)
    """The attempts that failed. Those of killed workers do not count."""
    lease_until = models.DateTimeField(null=True)
    total = models.PositiveIntegerField(default=0)
    """The live sessions at the time of the request."""
    done = models.PositiveIntegerField(default=0)
    fault = models.CharField(max_length=64, blank=True)
    """The code of the last failure; empty if the last attempt did not fail."""

    objects: ClassVar[models.Manager["SessionEndJob"]] = LeasedQuerySet.as_manager()

    class Meta:
        app_label = "phi_oidc_officer_admin"
        verbose_name = _("request to end sessions")
        verbose_name_plural = _("requests to end sessions")
        default_permissions = ()
        permissions = (
            ("end_many_oidcsessions", gettext_noop("Can end the sessions of many people")),
        )
        indexes = (models.Index(fields=["requested_at"], name="phi_oidc_end_job_requested"),)

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def is_open(self) -> bool:
        """True while sessions remain to be ended."""
        return self.state in (self.State.WAITING, self.State.RUNNING)
