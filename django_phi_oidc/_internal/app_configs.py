"""The base class of the app configurations of this package."""

from collections.abc import Mapping
from typing import Any

from django.apps import AppConfig

from ..config import sections
from .officer_groups import OfficerGroup


class FeatureConfig(AppConfig):
    """An app of this package, and what it adds to the others.

    A subclass sets `default = True`: Django finds two configurations in its `apps.py`, because this
    class is imported there.
    """

    default_auto_field = "django.db.models.BigAutoField"

    options: type | None = None
    """A frozen dataclass, whose fields are the options that the app adds to PHI_OIDC."""
    provider_option: tuple[str, type] | None = None
    """The key that the app adds to the dictionary of a provider, and the class that declares it."""
    officer_permissions: Mapping[OfficerGroup, tuple[str, ...]] = {}
    """What `phi_oidc groups` grants to groups of officers: permissions as `app_label.codename`."""

    def __init__(self, app_name: str, app_module: Any) -> None:
        # Django creates all configurations before it imports models and calls ready(), so options
        # can be read from there on.
        super().__init__(app_name, app_module)
        if self.options is not None:
            sections.register_section(self.name, self.options)
