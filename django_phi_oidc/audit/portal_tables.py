"""The tables of the audit log that are not in the audit database."""

from typing import ClassVar

from django.db import models


class PortalTable(models.Model):
    """A table in the database of the portal.

    The models of this app are in the audit database unless they inherit this class. The reasons
    for it are:

    - The change of a row and its event are written in one transaction: the outbox.
    - The number must be stored although the audit database is unavailable: refusal counts.
    - The row contradicts an audit database that was rewritten, lost or restored, so it must not be
      restored with it: witnesses, cosignatures, archives, verification records.
    - The row is compared and replaced together with an event of the outbox: the recorded
      configuration.
    """

    in_portal_database: ClassVar[bool] = True
    """Read by the router. Not an option of Meta, because Django accepts no others there."""

    class Meta:
        abstract = True
