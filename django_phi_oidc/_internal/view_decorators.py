"""View decorators that several packages share."""

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction


def public_view(view: Any) -> Any:
    """Make a view public: no login is required, and ATOMIC_REQUESTS of no database applies to
    it.
    """
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return login_not_required(view)
