"""Providers that are recognized by their metadata. No Django."""

from collections.abc import Mapping
from typing import Any

from .definitions import KnownProvider
from .national_services import NATIONAL_SERVICES
from .products import PRODUCTS
from .record_systems import RECORD_SYSTEMS

KNOWN_PROVIDERS = (*NATIONAL_SERVICES, *RECORD_SYSTEMS, *PRODUCTS)
"""Those with marks in their issuers before those whose marks are paths, because some of the former
run the latter.
"""
PROVIDERS_BY_SLUG = {known.slug: known for known in KNOWN_PROVIDERS if known.slug}


def find_known_provider(members: Mapping[str, Any]) -> KnownProvider | None:
    """Return the provider with these metadata; None if it is not known."""
    return next((known for known in KNOWN_PROVIDERS if known.has_mark(members)), None)
