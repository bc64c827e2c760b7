"""The groups for the clinic's roles (ROLES in the settings), and their permissions."""

import os

from django.contrib.auth.models import Group, Permission
from django.core.management import call_command

CLINICIANS = "Clinicians"
CLINICIAN_PERMISSIONS = ("view_chart", "open_emergencyaccess")


def create_groups() -> None:
    """Create the clinicians' group and those of `phi_oidc groups`, with exactly their permissions. Idempotent."""
    group, _ = Group.objects.get_or_create(name=CLINICIANS)
    group.permissions.set(Permission.objects.filter(codename__in=CLINICIAN_PERMISSIONS))
    with open(os.devnull, "w") as discarded:
        call_command("phi_oidc", "groups", stdout=discarded)
