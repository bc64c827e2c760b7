"""Print PHI_OIDC for a project that uses another OpenID Connect library, and link its users.

The libraries are mozilla-django-oidc and django-allauth. The command runs before PHI_OIDC exists,
and prints no secret and no `sub`.
"""

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from .... import conf
from ...._internal.command_arguments import Options, add_command
from ...._internal.command_output import Output, ProgressLine
from ....audit.request_context import current_origin
from ....crypto import keyring
from ....errors import KeyMissing, SubjectKeyMissing
from .. import allauth, mozilla
from ..allauth import SocialApplication
from ..settings_plan import SettingsPlan, describe_plan, format_list, format_plan
from ..social_accounts import (
    DONE,
    LinkOptions,
    LinkOutcome,
    LinkResult,
    count_social_accounts,
    count_users_without_social_account,
    find_refusal,
    link_social_accounts,
)

READING_COMMANDS = ("migrate-from mozilla",)
COMMANDS_WITHOUT_CHECKS = ("migrate-from mozilla", "migrate-from allauth")

NO_SUBJECTS = (
    "mozilla-django-oidc finds users by their e-mail addresses and stores no sub, so this command "
    "can't link them. Link them with `phi_oidc subject link --csv`, or at their next sign-in by "
    "link_verified_email."
)
OUTCOME_TEXTS = {
    LinkOutcome.LINKED: "linked",
    LinkOutcome.ALREADY_LINKED: "linked before",
    LinkOutcome.TAKEN: "refused: this person is linked to another user",
    LinkOutcome.PRIVILEGED: "refused: the user has privileges (--allow-privileged)",
    LinkOutcome.OTHER_SUB: "refused: the uid is not the sub of the last sign-in",
    LinkOutcome.OTHER_ISSUER: "refused: the last sign-in was at another issuer",
    LinkOutcome.INVALID_SUB: "refused: a sign-in with this sub would be refused",
    LinkOutcome.USER_DELETED: "refused: the user was deleted",
}
LIBRARIES: Mapping[str, tuple[Callable[[], bool], Callable[[], SettingsPlan], str]] = {
    "mozilla": (mozilla.has_settings, mozilla.read_mozilla_settings, "OIDC_RP_CLIENT_ID"),
    "allauth": (allauth.has_settings, allauth.read_allauth_settings, "SOCIALACCOUNT_PROVIDERS"),
}
"""Whether the project has settings of that library, how to read them, and the setting that is
always there.
"""
NO_ACCOUNTS = "allauth.socialaccount is not in INSTALLED_APPS."
NOT_READY = "the tables or the keys of this package cannot be read"


def add_arguments(parser: ArgumentParser) -> None:
    libraries = parser.add_subparsers(dest="library", required=True, metavar="SUBCOMMAND")
    text = "Print the equivalent of the settings of mozilla-django-oidc."
    mozilla_parser = add_command(libraries, "mozilla", _migrate_from_mozilla, text)
    text = "Print the equivalent of the settings of django-allauth, or link its users."
    allauth_parser = add_command(libraries, "allauth", _migrate_from_allauth, text)
    # Its negation, because a subcommand with `dry_run` records no event, and needs no operator.
    mozilla_parser.add_argument(
        "--apply",
        dest="dry_run",
        action="store_false",
        help="Say how the existing users can be linked.",
    )
    allauth_parser.add_argument(
        "--apply",
        dest="dry_run",
        action="store_false",
        help="Link the existing users by SocialAccount.uid.",
    )
    text = (
        "With --apply: also link users who may act on the data of others, such as members of staff."
    )
    allauth_parser.add_argument("--allow-privileged", action="store_true", help=text)


def read_plan(library: str) -> SettingsPlan:
    """Return the plan for the settings of that library. Raises: CommandError if there are none."""
    has_settings, read_settings, setting = LIBRARIES[library]
    if not has_settings():
        raise CommandError(f"There are no settings of {library}: {setting} is missing.")
    return read_settings()


def _migrate_from_mozilla(options: Options, output: Output) -> None:
    if not options["dry_run"]:
        raise CommandError(f"Nothing was linked. {NO_SUBJECTS}")
    _write_plan(read_plan("mozilla"), [NO_SUBJECTS], output)


def _migrate_from_allauth(options: Options, output: Output) -> None:
    if options["dry_run"]:
        plan = read_plan("allauth")
        _write_plan(
            plan,
            list(_describe_users(options)) if allauth.has_accounts() else [NO_ACCOUNTS],
            output,
        )
        return
    if not allauth.has_accounts():
        raise CommandError(f"Nothing was linked: {NO_ACCOUNTS}")
    _link_users(options, output)


def _write_plan(plan: SettingsPlan, users: list[str], output: Output) -> None:
    text = format_plan(plan) + format_list("Existing users", users, marker="# ").rstrip("\n")
    output.write_row({**describe_plan(plan), "users": users}, text)


def _describe_users(options: Options) -> Iterator[str]:
    """Yield what --apply would do. Changes nothing."""
    try:
        for application in _list_applications():
            if count := count_social_accounts(application.account_provider):
                yield (
                    f"{application.name}: {count} social accounts. "
                    f"{_describe_outcomes(application, options)}."
                )
            else:
                yield f"{application.name}: no social accounts."
        if count := count_users_without_social_account():
            yield (
                f"Users without a social account: {count}. Use "
                "`phi_oidc subject link --csv`, or invite them."
            )
    except DatabaseError:
        yield "The tables of django-allauth could not be read."


def _describe_outcomes(application: SocialApplication, options: Options) -> str:
    if refusal := find_refusal(application, conf.providers().get(application.name)):
        return f"--apply would link none of them, because {refusal}"
    try:
        return f"After --apply: {_format_counts(_count(_iter_results(application, options)))}"
    except (DatabaseError, KeyMissing, SubjectKeyMissing):
        return f"--apply would link none of them, because {NOT_READY}"


def _link_users(options: Options, output: Output) -> None:
    """Raises: CommandError, if an account could not be linked."""
    refused_count = 0
    for application in _list_applications():
        total = count_social_accounts(application.account_provider)
        refusal = find_refusal(application, conf.providers().get(application.name))
        with ProgressLine(output, "social accounts", total) as progress:
            if not refusal:
                results = list(progress.track(_iter_results(application, options)))
            else:
                results = []
        refused = []
        for result in results:
            if result.outcome not in DONE:
                refused.append(_describe_result(result))

        if refusal:
            refused_count += total
        else:
            refused_count += len(refused)

        row = {
            "provider": application.name,
            "refusal": refusal,
            "accounts": total,
            "outcomes": _count(results),
            "refused": refused,
        }
        output.write_row(row, _format_row)
    if refused_count:
        raise CommandError(f"{refused_count} social accounts were not linked.")


def _describe_result(result: LinkResult) -> dict[str, str]:
    return {
        "social_account": str(result.account_pk),
        "user_pk": str(result.user_pk),
        "outcome": str(result.outcome),
    }


def _iter_results(application: SocialApplication, options: Options) -> Iterator[LinkResult]:
    link_options = LinkOptions(
        keys=keyring.get_keys("subject"),
        origin=current_origin(),
        dry_run=options["dry_run"],
        allow_privileged=options["allow_privileged"],
    )
    return link_social_accounts(application, conf.providers()[application.name], link_options)


def _list_applications() -> list[SocialApplication]:
    """Return one application for each value of SocialAccount.provider."""
    applications = {}
    for application in allauth.list_applications():
        applications[application.account_provider] = application
    return list(applications.values())


def _count(results: Iterable[LinkResult]) -> dict[str, int]:
    return dict(Counter(str(result.outcome) for result in results))


def _format_counts(counts: Mapping[str, int]) -> str:
    texts = []
    for outcome, text in OUTCOME_TEXTS.items():
        if outcome in counts:
            texts.append(f"{counts[outcome]} {text}")
    return ", ".join(texts)


def _format_row(row: Any) -> str:
    if row["refusal"]:
        return (
            f"{row['provider']}: none of {row['accounts']} social "
            f"accounts was linked, because {row['refusal']}."
        )
    lines = [f"{row['provider']}: {_format_counts(row['outcomes']) or 'no social accounts'}."]
    for item in row["refused"]:
        lines.append(
            f"  social account {item['social_account']}, user pk:{item['user_pk']}: "
            f"{OUTCOME_TEXTS[item['outcome']]}"
        )
    return "\n".join(lines)
