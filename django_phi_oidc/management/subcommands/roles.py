"""What the claims of a sign-in would make of somebody's groups, and why; nothing is changed."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, OutputWrapper
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...access.role_mapping import has_matching_value
from ...access.role_sync import get_existing_and_held_roles, plan_roles
from ...claims.minimization import minimize
from ...config.roles import RoleRule, get_managed_roles
from ._arguments import get_user_by_pk

OUTCOME_TEXTS = {
    "added": "would be added",
    "removed": "would be removed",
    "kept": "stays",
    "not_given": "is not given, and not held",
    "missing": "would be given, and does not exist",
    "last": "is not given, and stays: nobody else who is active has it",
    "held": "is held",
    "not_held": "is not held",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommand of `phi_oidc roles`."""
    commands = parser.add_subparsers(dest="roles_command", required=True)
    explain = commands.add_parser("explain", help="say which rules match and what a sign-in would change; a dry run")
    explain.add_argument("--provider", metavar="NAME", help="whose rules; default: the first provider's")
    explain.add_argument("--user", metavar="PK", help="primary key of the user; without one: somebody new")
    explain.add_argument("--claims", metavar="FILE", help="a JSON object of the claims that would come, or -")
    explain.add_argument("--json", action="store_true")


@sensitive_variables()
def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Print what a sign-in would do. Raises: CommandError when there is no such user, provider, or file of claims."""
    if options["user"] is None and options["claims"] is None:
        raise CommandError("Name a user, a file of claims, or both.")
    provider = options["provider"] or next(iter(conf.providers()), "")
    if provider not in conf.providers():
        raise CommandError(f"There is no provider {provider}.")
    rules = conf.roles().get(provider, ())
    user = None if options["user"] is None else get_user_by_pk(options["user"])
    came = None if options["claims"] is None else minimize(_read_claims(options["claims"]), conf.claims())
    claims = None if came is None else came.kept
    told = {
        "provider": provider,
        "user": "" if user is None else str(user.pk),
        "undeclared": [] if came is None else list(came.undeclared_claims),
        "rules": [_describe_rule(number, rule, claims) for number, rule in enumerate(rules)],
        "roles": list(_list_role_outcomes(user, rules, claims)),
    }
    stdout.write(json.dumps(told) if options["json"] else "\n".join(_format_lines(told)))


def _describe_rule(number: int, rule: RoleRule, claims: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "rule": number,
        "claim": rule.claim,
        "path": list(rule.path),
        "values": list(rule.values),
        "gives": sorted(role.name for role in rule.roles),
        "came": None if claims is None else rule.claim in claims,
        "matches": None if claims is None else has_matching_value(rule, claims),
    }


def _list_role_outcomes(
    user: Any, rules: Sequence[RoleRule], claims: Mapping[str, Any] | None
) -> Iterator[dict[str, Any]]:
    """Yield what becomes of each managed role, and the numbers of the rules that say so.

    Claims are not kept for this, so of a user alone it can only be told what they have, and what would give it.
    """
    if claims is None:
        _, held = get_existing_and_held_roles(user, rules)
        outcomes = {role: "held" if role in held else "not_held" for role in sorted(get_managed_roles(rules))}
    else:
        outcomes = {role: str(outcome) for role, outcome in plan_roles(user, rules=rules, claims=claims).items()}
    for role, outcome in outcomes.items():
        giving = [
            i
            for i, rule in enumerate(rules)
            if role in rule.roles and (claims is None or has_matching_value(rule, claims))
        ]
        yield {"kind": role.kind, "name": role.name, "outcome": outcome, "rules": giving}


def _format_lines(explanation: Mapping[str, Any]) -> Iterator[str]:
    yield f"Provider {explanation['provider']}, {'user ' + explanation['user'] if explanation['user'] else 'somebody new'}."
    if not explanation["rules"]:
        yield "It has no rules: groups are left alone."
    if explanation["undeclared"]:
        yield f"Not declared, and dropped: {', '.join(map(ascii, explanation['undeclared']))}."
    for rule in explanation["rules"]:
        claim = " > ".join([rule["claim"], *rule["path"]])
        values = ", ".join(json.dumps(value) for value in rule["values"])
        yield f"rule {rule['rule']}: {claim} has one of {values}{_format_match(rule)}"
    for role in explanation["roles"]:
        by = f" (rule {', '.join(map(str, role['rules']))})" if role["rules"] else ""
        yield f"{role['kind']} {role['name']}: {OUTCOME_TEXTS[role['outcome']]}{by}"


def _format_match(rule: Mapping[str, Any]) -> str:
    if rule["matches"] is None:
        return ""
    return ": yes" if rule["matches"] else ": no" if rule["came"] else ": no, the claim did not come"


@sensitive_variables()
def _read_claims(path: str) -> Mapping[str, Any]:
    """Return the claims in that file. What is wrong with it is told without a word of it."""
    try:
        read = json.loads(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CommandError(f"{path} can't be read as JSON: {type(error).__name__}.") from None
    if not isinstance(read, dict):
        raise CommandError(f"{path} is no JSON object of claims.")
    return read
