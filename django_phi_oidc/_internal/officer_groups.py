"""The groups of officers that `phi_oidc groups` creates."""

from enum import StrEnum


class OfficerGroup(StrEnum):
    """The name of a group. Each app of this package adds its permissions to these groups."""

    PRIVACY_OFFICER = "Privacy officer"
    SECURITY_OFFICER = "Security officer"
    HELP_DESK = "Help desk"
