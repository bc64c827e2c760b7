"""The groups for the clinic's roles (ROLES in the settings), and their permissions."""

from django.contrib.auth.models import Group, Permission

GROUPS = {
    "Clinicians": ("view_chart", "open_emergencyaccess"),
    "Privacy officers": (
        "view_auditevent",
        "export_auditevent",
        "view_emergencyaccess",
        "review_emergencyaccess",
        "view_storedclaim",
    ),
}


def create_groups() -> None:
    """Create the groups with exactly these permissions. Idempotent."""
    for name, codenames in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.set(Permission.objects.filter(codename__in=codenames))
