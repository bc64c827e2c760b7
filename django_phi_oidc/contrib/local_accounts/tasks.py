"""What `phi_oidc.prune` deletes of this app."""

from datetime import datetime

from ..._internal.periodic_task import row_pruner
from .known_senders import delete_unused_networks


@row_pruner
def prune_networks(*, now: datetime, before: datetime) -> None:
    """Delete the networks that are not used. before: does not matter to them."""
    delete_unused_networks(now=now)
