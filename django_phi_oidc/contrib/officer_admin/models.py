"""The hourly numbers that the charts of the overview are drawn from."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


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
