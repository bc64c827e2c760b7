"""The groups of those who run the desk, each with exactly the permissions that it needs."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.management.base import CommandError, OutputWrapper
from django.db import transaction

_APP_LABEL = "django_phi_oidc"
VIEW_USER = "view the user model"
"""Stands for the permission of that name of whatever user model the project has."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Privacy officer": (
        VIEW_USER,
        *("view_pairwisesubject", "export_pairwisesubject", "view_activationcode"),
        *("view_oidcsession", "end_oidcsession"),
        *("view_storedclaim", "reveal_storedclaim", "scrub_storedclaim"),
        *("view_legalhold", "add_legalhold", "change_legalhold", "disclose_legalhold"),
        *("view_emergencyaccess", "review_emergencyaccess"),
        *("view_auditevent", "export_auditevent", "view_auditcheckpoint", "view_securityalert"),
    ),
    "Security officer": (
        VIEW_USER,
        *("view_pairwisesubject", "view_activationcode"),
        *("view_oidcsession", "end_oidcsession", "view_pendingrevocation", "retry_pendingrevocation"),
        *("view_emergencyaccess", "view_auditevent", "export_auditevent", "view_auditcheckpoint"),
        *("view_securityalert", "acknowledge_securityalert", "view_alertmute", "add_alertmute", "change_alertmute"),
    ),
    "Help desk": (
        VIEW_USER,
        *("view_pairwisesubject", "view_activationcode", "issue_activationcode"),
        *("view_oidcsession", "end_oidcsession"),
    ),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `phi_oidc groups`."""
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 when something would be changed")
    parser.add_argument("--json", action="store_true", help="an object a line")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Make the groups what they must be, and tell what that changed. Raises: CommandError where a permission lacks."""
    is_changed = False
    with transaction.atomic():
        for name in GROUPS:
            told = _sync_group(name, dry_run=options["check"])
            is_changed |= told["made"] or bool(told["added"] or told["removed"])
            stdout.write(json.dumps(told) if options["json"] else _format_change(told))
    if options["check"] and is_changed:
        raise CommandError("The groups are not as `phi_oidc groups` makes them.")


def get_required_permissions(group_name: str) -> set[str]:
    """Return what the group must have, as `app_label.codename`."""
    users = get_user_model()._meta
    user = f"{users.app_label}.view_{users.model_name}"
    return {user if each == VIEW_USER else f"{_APP_LABEL}.{each}" for each in GROUPS[group_name]}


def _sync_group(group_name: str, *, dry_run: bool) -> dict[str, Any]:
    there = {_format_permission(each): each for each in Permission.objects.select_related("content_type")}
    must = get_required_permissions(group_name)
    if missing := sorted(must - there.keys()):
        raise CommandError(f"There is no permission {missing[0]}: run migrate.")
    group = Group.objects.filter(name=group_name).first()
    has = {_format_permission(each) for each in group.permissions.select_related("content_type")} if group else set()
    if not dry_run and (group is None or has != must):
        made = group or Group.objects.create(name=group_name)
        # Exactly these: `set` sends a signal of what changes alone.
        made.permissions.set([there[each] for each in must])
    return {"group": group_name, "made": group is None, "added": sorted(must - has), "removed": sorted(has - must)}


def _format_permission(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"


def _format_change(change: Mapping[str, Any]) -> str:
    changes = [f"{sign}{each}" for key, sign in (("added", "+"), ("removed", "-")) for each in change[key]]
    return f"{change['group']}{' (new)' if change['made'] else ''}: {', '.join(changes) or 'as it was'}"
