"""Create, rotate, revoke and list the clients that provision accounts by SCIM, and attach their
users to accounts.
"""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.views.decorators.debug import sensitive_variables

from ...._internal import clock
from ...._internal.command_arguments import Options, add_command, add_dry_run, parse_number
from ...._internal.command_output import Output, format_value
from ....audit.request_context import current_origin
from ....config.option_parsers import parse_name
from ....errors import DeclarationInvalid
from ....management.subcommands._arguments import USER_FORMS, build_user_row, get_user
from ..account_attachment import attach_account
from ..clients import (
    DEFAULT_LIFETIME,
    DEFAULT_OVERLAP,
    IssuedToken,
    SCIMClientRefused,
    create_client,
    revoke_client,
    rotate_token,
)
from ..models import SCIMClient, SCIMToken
from ..scim_users import SCIMRefused

READING_COMMANDS = ("scim list",)

MAX_DAYS = 731


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="scim_command", required=True, metavar="SUBCOMMAND")
    create = add_command(commands, "create", _create, "Create a client and show its token once.")
    create.add_argument(
        "name", type=_parse_client_name, metavar="CLIENT", help="The name of the new client."
    )
    provider_help = "The provider whose accounts it manages, which has the option scim."
    create.add_argument("--provider", required=True, metavar="NAME", help=provider_help)
    rotate = add_command(
        commands, "rotate", _rotate, "Show a new token once; the last one stays valid for a while."
    )
    rotate.add_argument("name", metavar="CLIENT", help="The client, by its name.")
    hours = int(DEFAULT_OVERLAP.total_seconds()) // 3600
    overlap_help = (
        f"How long the last token stays valid, in hours; 0: it ends now (default: {hours})."
    )
    rotate.add_argument(
        "--overlap-hours", type=parse_number, default=hours, metavar="N", help=overlap_help
    )
    for command in (create, rotate):
        days_help = (
            f"How long the token is valid, at most {MAX_DAYS} days (default: "
            f"{DEFAULT_LIFETIME.days})."
        )
        command.add_argument(
            "--days", type=_parse_days, default=DEFAULT_LIFETIME.days, metavar="N", help=days_help
        )
    revoke = add_command(commands, "revoke", _revoke, "Revoke a client and its tokens for good.")
    revoke.add_argument("name", metavar="CLIENT", help="The client, by its name.")
    add_dry_run(revoke)
    attach_help = (
        "Attach a SCIM user to an account that its person had "
        "before, and disable the one created for it."
    )
    attach = add_command(commands, "attach", _attach, attach_help)
    attach.add_argument("resource", metavar="ID", help="The SCIM user, by its id.")
    attach.add_argument("user", metavar="USER", help=f"The account: {USER_FORMS}.")
    add_dry_run(attach)
    add_command(commands, "list", _list, "List the clients and their tokens.")


@sensitive_variables()
def _create(options: Options, output: Output) -> None:
    provider = options["provider"]
    lifetime = timedelta(days=options["days"])
    try:
        issued = create_client(
            options["name"],
            provider=provider,
            lifetime=lifetime,
            origin=current_origin(),
            now=clock.now(),
        )
    except SCIMClientRefused as error:
        raise CommandError(str(error)) from error
    _show_token(issued, output)


@sensitive_variables()
def _rotate(options: Options, output: Output) -> None:
    client = _get_client(options["name"])
    overlap = timedelta(hours=options["overlap_hours"])
    lifetime = timedelta(days=options["days"])
    try:
        issued = rotate_token(
            client, lifetime=lifetime, overlap=overlap, origin=current_origin(), now=clock.now()
        )
    except SCIMClientRefused as error:
        raise CommandError(str(error)) from error
    _show_token(issued, output)


@sensitive_variables()
def _show_token(issued: IssuedToken, output: Output) -> None:
    fields = {"client": issued.client.name, "provider": issued.client.provider}
    row = {**fields, "token": issued.token, "expires_at": format_value(issued.expires_at)}
    text = "The token of client {client}, for provider {provider}, until {expires_at}: {token}"
    output.write_row(row, text.format_map)


def _revoke(options: Options, output: Output) -> None:
    client = _get_client(options["name"])
    row = {"client": client.name}
    if options["dry_run"]:
        if client.revoked_at:
            raise CommandError(f"The client {client.name} was revoked.")
        output.preview(row, f"Client {client.name} would be revoked.")
        return
    try:
        revoke_client(client, origin=current_origin(), now=clock.now())
    except SCIMClientRefused as error:
        raise CommandError(str(error)) from error
    output.confirm(row, f"Client {client.name} was revoked.")


def _attach(options: Options, output: Output) -> None:
    user = get_user(options["user"])
    is_dry_run = options["dry_run"]
    origin = current_origin()
    now = clock.now()
    try:
        created = attach_account(
            options["resource"], user, origin=origin, now=now, is_dry_run=is_dry_run
        )
    except SCIMRefused as error:
        raise CommandError(str(error)) from error
    row = {**build_user_row(user), "resource": options["resource"], "disabled": str(created.pk)}
    if is_dry_run:
        output.preview(
            row, f"The SCIM user would be attached, and account pk:{created.pk} disabled."
        )
        return
    output.confirm(row, f"The SCIM user is attached, and account pk:{created.pk} is disabled.")


def _list(options: Options, output: Output) -> None:
    now = clock.now()
    clients = SCIMClient.objects.order_by("name")
    for client in clients:
        valid = SCIMToken.objects.filter(
            client=client, revoked_at=None, expires_at__gt=now
        ).order_by("-created_at")
        tokens = []
        for token in valid:
            tokens.append((format_value(token.expires_at), format_value(token.last_used_at)))
        row: dict[str, Any] = {"client": client.name, "provider": client.provider}
        row |= {"revoked_at": format_value(client.revoked_at)}
        row["tokens"] = [{"expires_at": expires, "last_used_at": used} for expires, used in tokens]
        output.write_row(row, _format_client)
    if not clients:
        output.write("There are no clients.")


def _format_client(client: Mapping[str, Any]) -> str:
    if client["revoked_at"]:
        return f"{client['client']}  {client['provider']}  revoked {client['revoked_at']}"
    tokens = []
    for token in client["tokens"]:
        tokens.append(
            f"a token until {token['expires_at']}, last used {token['last_used_at'] or 'never'}"
        )
    return f"{client['client']}  {client['provider']}  {'; '.join(tokens) or 'no valid token'}"


def _get_client(name: str) -> SCIMClient:
    """Raises: CommandError."""
    client = SCIMClient.objects.filter(name=name).first()
    if client is None:
        raise CommandError(f"There is no client {name}.")
    return client


def _parse_client_name(text: str) -> str:
    try:
        return parse_name("CLIENT", text)
    except DeclarationInvalid as error:
        raise ArgumentTypeError(str(error)) from error


def _parse_days(text: str) -> int:
    days = parse_number(text)
    if not 1 <= days <= MAX_DAYS:
        raise ArgumentTypeError(f"from 1 to {MAX_DAYS}")
    return days
