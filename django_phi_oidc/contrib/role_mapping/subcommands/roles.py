"""Explain which groups a sign-in with given claims would change, without changing them."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.views.decorators.debug import sensitive_variables

from .... import conf
from ...._internal.command_arguments import Options, add_command, build_argument_error
from ...._internal.command_output import Output, format_untrusted
from ....claims.minimization import minimize
from ....management.subcommands._arguments import USER_FORMS, describe_user, get_provider, get_user
from .. import conf as role_mapping_conf
from ..declaration import RoleRule, get_managed_roles
from ..role_mapping import has_matching_value
from ..role_sync import get_existing_and_held_roles, plan_roles

READING_COMMANDS = ("roles explain",)

OUTCOME_TEXTS = {
    "added": "would be added",
    "removed": "would be removed",
    "kept": "stays",
    "not_given": "is not granted and not held",
    "missing": "would be granted, but does not exist",
    "last": "is not granted, but stays: no other active user has it",
    "held": "is held",
    "not_held": "is not held",
}


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="roles_command", required=True, metavar="SUBCOMMAND")
    explain = add_command(
        commands, "explain", _explain, "Show which rules match and what a sign-in would change."
    )
    explain.add_argument(
        "--provider", metavar="NAME", help="Whose rules to use (default: the first provider)."
    )
    explain.add_argument(
        "--user", metavar="USER", help=f"The user (default: a new one): {USER_FORMS}."
    )
    explain.add_argument(
        "--claims", metavar="FILE", help="A JSON object with the claims of the sign-in, or -."
    )


@sensitive_variables()
def _explain(options: Options, output: Output) -> None:
    if options["user"] is None and options["claims"] is None:
        raise build_argument_error("Name a user, a file with claims, or both.")
    first_provider = next(iter(conf.providers()), "")
    provider = get_provider(options["provider"] or first_provider).name
    rules = role_mapping_conf.roles().get(provider, ())

    user = None
    user_description = ""
    if options["user"] is not None:
        user = get_user(options["user"])
        user_description = describe_user(user)

    claims: Mapping[str, Any] | None = None
    undeclared: list[str] = []
    if options["claims"] is not None:
        minimized = minimize(_read_claims(options["claims"]), conf.claims())
        claims = minimized.kept
        undeclared = list(minimized.undeclared_claims)

    explanation = {
        "provider": provider,
        "user": user_description,
        "undeclared": undeclared,
        "rules": [_describe_rule(number, rule, claims) for number, rule in enumerate(rules)],
        "roles": list(_list_role_outcomes(user, rules, claims)),
    }
    output.write_row(explanation, lambda row: "\n".join(_format_lines(row)))


def _describe_rule(number: int, rule: RoleRule, claims: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the row of a rule. Without claims, `came` and `matches` are None."""
    came = None
    matches = None
    if claims is not None:
        came = rule.claim in claims
        matches = has_matching_value(rule, claims)
    return {
        "rule": number,
        "claim": rule.claim,
        "path": list(rule.path),
        "values": list(rule.values),
        "gives": sorted(role.name for role in rule.roles),
        "came": came,
        "matches": matches,
    }


def _list_role_outcomes(
    user: Any, rules: Sequence[RoleRule], claims: Mapping[str, Any] | None
) -> Iterator[dict[str, Any]]:
    """Yield the outcome for each managed role, with the numbers of the rules that grant it.

    Claims of earlier sign-ins are not stored, so without claims this shows only the roles the user
    holds.
    """
    outcomes = {}
    if claims is None:
        _, held = get_existing_and_held_roles(user, rules)
        for role in sorted(get_managed_roles(rules)):
            if role in held:
                outcomes[role] = "held"
            else:
                outcomes[role] = "not_held"
    else:
        for role, outcome in plan_roles(user, rules=rules, claims=claims).items():
            outcomes[role] = str(outcome)
    matching = []
    for n, rule in enumerate(rules):
        if claims is None or has_matching_value(rule, claims):
            matching.append((n, rule))
    for role, text in outcomes.items():
        granting = []
        for number, rule in matching:
            if role in rule.roles:
                granting.append(number)
        yield {"kind": role.kind, "name": role.name, "outcome": text, "rules": granting}


def _format_lines(explanation: Mapping[str, Any]) -> Iterator[str]:
    if explanation["user"]:
        user = f"user {format_untrusted(explanation['user'])}"
    else:
        user = "a new user"

    yield f"Provider {explanation['provider']}, {user}."
    if not explanation["rules"]:
        yield "The provider has no rules, so groups are not changed."
    if explanation["undeclared"]:
        yield f"Undeclared claims, ignored: {', '.join(map(ascii, explanation['undeclared']))}."
    for rule in explanation["rules"]:
        claim = " > ".join([rule["claim"], *rule["path"]])
        values = ", ".join(json.dumps(value) for value in rule["values"])

        if rule["matches"] is None:
            match = ""
        elif rule["matches"]:
            match = ": yes"
        else:
            match = ": no"

        if rule["came"] is False:
            missing = ", the claim is missing"
        else:
            missing = ""

        yield f"rule {rule['rule']}: {claim} has one of {values}{match}{missing}"
    for role in explanation["roles"]:
        if role["rules"]:
            rules = f" (rule {', '.join(map(str, role['rules']))})"
        else:
            rules = ""
        yield f"{role['kind']} {role['name']}: {OUTCOME_TEXTS[role['outcome']]}{rules}"


@sensitive_variables()
def _read_claims(path: str) -> Mapping[str, Any]:
    """Return the claims in that file. Error messages contain nothing of its content."""
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            text = Path(path).read_text(encoding="utf-8")
        claims = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise CommandError(f"{path} cannot be read as JSON: {type(error).__name__}.") from None
    if not isinstance(claims, dict):
        raise CommandError(f"{path} is not a JSON object of claims.")
    return claims
