"""Give an account access to the admin, which makes the first administrator.

The operating system decides who may run this. The operator sees whose account it is, and confirms
it.
"""

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist
from django.core.management.base import CommandError
from django.urls import NoReverseMatch, reverse

from .... import conf
from ...._internal.command_arguments import (
    Options,
    add_command,
    add_confirmation,
    add_dry_run,
    build_argument_error,
    require_confirmation,
)
from ...._internal.command_output import Output, format_untrusted, format_value
from ...._internal.suggestions import suggest
from ....access.roles import Role
from ....extensions import role_sources
from ....management.subcommands._arguments import (
    USER_FORMS,
    build_user_row,
    describe_user,
    get_user,
)
from ....provider.labels import find_provider_name
from ....subjects.local_accounts import is_local_account
from ....subjects.models import PairwiseSubject
from ...common.role_grants import (
    grant_roles,
    list_held_roles,
    list_missing_groups,
    withdraw_roles,
)
from .groups import list_group_names

STAFF = Role("flag", "is_staff")
SUPERUSER = Role("flag", "is_superuser")


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="admin_command", required=True, metavar="SUBCOMMAND")
    grant = add_command(
        commands, "grant", _grant, "Give an account access to the admin, and groups."
    )
    grant.add_argument("user", metavar="USER", help=f"The account: {USER_FORMS}.")
    groups_help = "A group that `phi_oidc groups` creates; may be repeated."
    grant.add_argument("--group", action="append", default=[], metavar="NAME", help=groups_help)
    superuser_help = (
        "Also give every permission, including that to reveal the claims of all persons."
    )
    grant.add_argument("--superuser", action="store_true", help=superuser_help)
    withdraw = add_command(
        commands, "withdraw", _withdraw, "Withdraw the access of an account to the admin."
    )
    withdraw.add_argument("user", metavar="USER", help=f"The account: {USER_FORMS}.")
    add_dry_run(withdraw)
    for command in (grant, withdraw):
        add_confirmation(command)


def _grant(options: Options, output: Output) -> None:
    user = _get_person(options["user"])
    roles = [STAFF, *([SUPERUSER] if options["superuser"] else [])]
    roles += [Role("group", name) for name in dict.fromkeys(options["group"])]
    _validate_roles(roles)
    question = " ".join(
        [*_describe_account(user), *_describe_risk(roles), f"It will get {_format_roles(roles)}."]
    )
    require_confirmation(question, options, refusal="Nothing was granted.")
    granted = grant_roles(user, roles)
    name = format_untrusted(describe_user(user))

    if granted:
        result = f"was granted {_format_roles(granted)}."
    else:
        result = "had all of this already."

    steps = list(_list_next_steps(user, roles))
    row = {**build_user_row(user), "granted": [role.name for role in granted], "next": steps}
    output.confirm(row, "\n".join([f"{name} {result}", *(f"Next: {step}" for step in steps)]))


def _withdraw(options: Options, output: Output) -> None:
    user = get_user(options["user"])
    groups = [Role("group", name) for name in list_group_names()]
    held = list_held_roles(
        user, [role for role in (STAFF, SUPERUSER, *groups) if _find_field(role)]
    )
    row = {**build_user_row(user), "withdrawn": [role.name for role in held]}
    name = format_untrusted(describe_user(user))
    if not held:
        output.confirm(row, f"{name} had no access to the admin.")
        return
    loss = _format_roles(held)
    if STAFF in held:
        others = (
            get_user_model()
            ._base_manager.filter(is_active=True, is_staff=True)
            .exclude(pk=user.pk)
            .count()
        )
        loss += f". Other active accounts with is_staff: {others}"
    if options["dry_run"]:
        output.preview(row, f"{name} would lose {loss}.")
        return
    question = " ".join([*_describe_account(user), f"It will lose {loss}."])
    require_confirmation(question, options, refusal="Nothing was withdrawn.")
    withdraw_roles(user, held)
    output.confirm(row, f"{name} lost {loss}.")


def _get_person(reference: str) -> Any:
    """Return the account. Raises: CommandError if it is unknown or inactive, or if no person can
    sign in with it.
    """
    try:
        user = get_user(reference)
    except CommandError as error:
        raise CommandError(
            f"{error} `manage.py phi_oidc subject list` shows who has signed in."
        ) from error
    name = format_untrusted(describe_user(user))
    if not user.is_active:
        raise CommandError(f"{name} is not active. Activate the account first.")
    is_linked = PairwiseSubject.objects.filter(user=user.pk).exists()
    if not is_linked and not is_local_account(user):
        # The person who is linked to it later would be an administrator.
        advice = "Ask the person to sign in first, or run `manage.py phi_oidc subject link`."
        raise CommandError(f"No person is linked to {name}. {advice}")
    return user


def _validate_roles(roles: Sequence[Role]) -> None:
    """Raises: CommandError if the user model lacks a field, or a group is not of `phi_oidc groups`,
    or is missing.
    """
    for role in roles:
        if not _find_field(role):
            raise CommandError(f"The user model lacks the field for {_format_roles([role])}.")
    known = list_group_names()
    for role in roles:
        if role.kind == "group" and role.name not in known:
            name = format_untrusted(role.name)
            raise build_argument_error(
                f"`phi_oidc groups` creates no group {name}.{suggest(role.name, known)}"
            )
    if missing := list_missing_groups(roles):
        raise CommandError(
            f"There is no group {missing[0]} yet. Run `manage.py phi_oidc groups` first."
        )


def _find_field(role: Role) -> Any:
    """Return the field of the user model for the role, or None."""
    try:
        return get_user_model()._meta.get_field(role.name if role.kind == "flag" else "groups")
    except FieldDoesNotExist:
        return None


def _describe_account(user: Any) -> Iterator[str]:
    """Yield sentences by which the operator can check whose account it is."""
    yield f"{format_untrusted(describe_user(user))} is the account pk:{user.pk}."
    for subject in PairwiseSubject.objects.filter(user=user.pk).order_by("pk"):
        provider = find_provider_name(subject.issuer) or subject.issuer
        times = (
            f"first seen {format_value(subject.first_seen_at)}, last seen "
            f"{format_value(subject.last_seen_at)}"
        )
        yield f"It belongs to a person of {provider}, {times}."


def _describe_risk(roles: Sequence[Role]) -> Iterator[str]:
    if SUPERUSER in roles:
        count = get_user_model()._base_manager.filter(is_active=True, is_superuser=True).count()
        yield (
            "A superuser can reveal the claims of all persons and "
            f"change all permissions; {count} are active now."
        )


def _list_next_steps(user: Any, roles: Sequence[Role]) -> Iterator[str]:
    try:
        yield f"Open {reverse('admin:index')} in the browser in which the account is signed in."
    except NoReverseMatch:
        yield "Add the admin to your URLs: path('admin/', admin.site.urls)."
    if any(role.kind == "group" for role in roles) and "roles" in conf.end_sessions_on():
        yield "Sign in again: the change of groups has ended the sessions of the account."
    user = get_user_model()._base_manager.get(pk=user.pk)
    get_permissions = getattr(user, "get_all_permissions", None)
    if get_permissions is None or not get_permissions():
        yield (
            "The account has no permissions, so the admin is "
            "empty: add --group NAME, or --superuser."
        )
    for source in role_sources:
        yield from source.list_withdrawals(roles)


def _format_roles(roles: Sequence[Role]) -> str:
    return ", ".join(
        role.name if role.kind == "flag" else f"the group {role.name}" for role in roles
    )
