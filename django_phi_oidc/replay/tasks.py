"""The Celery task that deletes expired identifiers."""

from .._internal import clock
from .._internal.periodic_task import periodic_task
from . import cache


@periodic_task("phi_oidc.prune_spent")
def delete_expired_identifiers() -> None:
    """Delete used identifiers that are refused for their age by now."""
    cache.delete_expired(now=clock.now())
