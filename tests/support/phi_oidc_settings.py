"""The setting `PHI_OIDC` with some options changed."""

from collections.abc import Mapping
from typing import Any

GROUPS = ("KEYS", "AUDIT", "SESSIONS")
"""Options that group other options: only the named members change."""


def override_phi_oidc(base: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Return base with other options; a group is merged, all else is replaced."""
    merged = {name: {**base.get(name, {}), **value} for name, value in options.items() if name in GROUPS}
    return {**base, **options, **merged}


def override_provider(base: Mapping[str, Any], name: str = "default", **options: Any) -> dict[str, Any]:
    """Return base with other options of one provider."""
    return {**base, "PROVIDERS": {**base["PROVIDERS"], name: {**base["PROVIDERS"][name], **options}}}


def remove_phi_oidc(settings: Any) -> None:
    """Delete the setting until the end of the test. Deletion sends no signal, so drop the parsed setting first."""
    settings.PHI_OIDC = {}
    del settings.PHI_OIDC
