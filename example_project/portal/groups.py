"""The roles of the clinic: groups that ROLES in the settings gives, and what each of them may do."""

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


def make_groups() -> None:
    """Make the groups, with exactly these permissions; again changes nothing."""
    for name, codenames in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.set(Permission.objects.filter(codename__in=codenames))
