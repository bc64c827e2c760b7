"""Create the groups of the officers and of the claim categories, each with exactly the permissions
it needs.
"""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.management.base import CommandError
from django.db import transaction

from ...._internal.app_configs import FeatureConfig
from ...._internal.command_arguments import Options, add_dry_run
from ...._internal.command_output import Output
from ...._internal.officer_groups import OfficerGroup
from ....claims.categories import get_category_permission, list_categories

READING_OPTIONS = {"groups": "check"}

CORE_PERMISSIONS: Mapping[OfficerGroup, tuple[str, ...]] = {
    OfficerGroup.PRIVACY_OFFICER: (
        "django_phi_oidc.view_pairwisesubject",
        "django_phi_oidc.view_oidcsession",
        "django_phi_oidc.end_oidcsession",
        "django_phi_oidc.view_storedclaim",
        "django_phi_oidc.reveal_storedclaim",
        "django_phi_oidc.scrub_storedclaim",
    ),
    OfficerGroup.SECURITY_OFFICER: (
        "django_phi_oidc.view_pairwisesubject",
        "django_phi_oidc.view_oidcsession",
        "django_phi_oidc.end_oidcsession",
        "django_phi_oidc.view_pendingrevocation",
        "django_phi_oidc.retry_pendingrevocation",
    ),
    OfficerGroup.HELP_DESK: (
        "django_phi_oidc.view_pairwisesubject",
        "django_phi_oidc.view_oidcsession",
        "django_phi_oidc.end_oidcsession",
    ),
}
"""Each group may also view the user model of the project, and has what the apps add in their
`officer_permissions`.
"""


def add_arguments(parser: ArgumentParser) -> None:
    add_dry_run(parser)
    check_help = "Change nothing, as with --dry-run; exit with status 1 if something would change."
    parser.add_argument("--check", action="store_true", help=check_help)
    parser.set_defaults(handler=handle)


def handle(options: Options, output: Output) -> None:
    """Create or correct the groups and print the changes. Raises: CommandError if a permission is
    missing.
    """
    is_changed = False
    is_dry_run = options["check"] or options["dry_run"]
    with transaction.atomic():
        for name in list_group_names():
            change = _sync_group(name, dry_run=is_dry_run)
            is_changed |= change["made"] or bool(change["added"] or change["removed"])
            if is_dry_run:
                output.write_row({**change, "dry_run": True}, _format_change)
            else:
                output.confirm(change, _format_change(change))
    if options["dry_run"]:
        output.write("Dry run: nothing was changed.")
    if options["check"] and is_changed:
        raise CommandError("The groups differ from what `phi_oidc groups` would create.")


def list_group_names() -> list[str]:
    """Return the officers' groups, then one for each category of claims: the users who may reveal
    these claims.
    """
    return [*OfficerGroup, *map(_get_category_group, list_categories())]


def get_required_permissions(group_name: str) -> set[str]:
    """Return the permissions of the group, as `app_label.codename`."""
    for category in list_categories():
        if group_name == _get_category_group(category):
            return {get_category_permission(category)}
    group = OfficerGroup(group_name)
    user_model = get_user_model()._meta
    permissions = set(CORE_PERMISSIONS[group])
    permissions.add(f"{user_model.app_label}.view_{user_model.model_name}")
    for config in apps.get_app_configs():
        if isinstance(config, FeatureConfig):
            permissions.update(config.officer_permissions.get(group, ()))
    return permissions


def _get_category_group(category: str) -> str:
    return f"Claims: {category}"


def _sync_group(group_name: str, *, dry_run: bool) -> dict[str, Any]:
    existing = {}
    for item in Permission.objects.select_related("content_type"):
        existing[_format_permission(item)] = item
    required = get_required_permissions(group_name)
    if missing := sorted(required - existing.keys()):
        raise CommandError(f"There is no permission {missing[0]}. Run migrate.")
    group = Group.objects.filter(name=group_name).first()
    if group:
        current = set(map(_format_permission, group.permissions.select_related("content_type")))
    else:
        current = set()

    if not dry_run and (group is None or current != required):
        target = group or Group.objects.create(name=group_name)
        # `set` sends its signal only for permissions that change.
        target.permissions.set([existing[name] for name in required])
    added = sorted(required - current)
    removed = sorted(current - required)
    return {"group": group_name, "made": group is None, "added": added, "removed": removed}


def _format_permission(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"


def _format_change(change: Mapping[str, Any]) -> str:
    changes = []
    for key, sign in (("added", "+"), ("removed", "-")):
        for name in change[key]:
            changes.append(f"{sign}{name}")
    return (
        f"{change['group']}{' (new)' if change['made'] else ''}: "
        f"{', '.join(changes) or 'unchanged'}"
    )
