"""The rules of the setting `ROLES`, as a source of roles at sign-ins."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.utils.translation import gettext
from django.views.decorators.debug import sensitive_variables

from ...access.roles import Role
from ...audit.events import Origin
from ...extensions import SignIn
from . import conf
from .claim_sources import claim_sources
from .declaration import RoleRule, get_managed_roles
from .role_sync import sync_roles


class RoleRules:
    """Implements `extensions.RoleSource`."""

    @sensitive_variables("claims")
    def sync_roles(self, sign_in: SignIn, *, claims: Mapping[str, Any], origin: Origin) -> None:
        provider = sign_in.provider.name
        rules = conf.roles().get(provider)
        if not rules:
            return
        sync_roles(
            sign_in.user,
            rules=rules,
            claims=_add_supplied_claims(claims, rules, sign_in),
            provider=provider,
            subject=str(sign_in.subject.uuid),
            origin=origin,
            now=sign_in.now,
        )

    def explain_role(self, role: Role) -> Iterator[str]:
        for provider, rules in conf.roles().items():
            for number, rule in enumerate(rules):
                if role in rule.roles:
                    reason = gettext("provider %(provider)s, rule %(number)d: claim %(claim)s")
                    claim = " > ".join([rule.claim, *rule.path])
                    yield reason % {"provider": provider, "number": number, "claim": claim}

    def list_withdrawals(self, roles: Sequence[Role]) -> Iterator[str]:
        for provider, rules in conf.roles().items():
            managed = get_managed_roles(rules).intersection(roles)
            if managed:
                names = ", ".join(sorted(role.name for role in managed))
                yield (
                    f"ROLES of {provider} manages {names}: a "
                    "sign-in there withdraws what no rule grants."
                )


@sensitive_variables()
def _add_supplied_claims(
    claims: Mapping[str, Any], rules: Sequence[RoleRule], sign_in: SignIn
) -> Mapping[str, Any]:
    """Return the claims of the sign-in, and those that apps supply, if a rule is about them."""
    supplied = dict(claims)
    named = {rule.claim for rule in rules}
    for source in claim_sources:
        if source.claim in named:
            values = source.get_values(sign_in.user.pk, provider=sign_in.provider.name)
            supplied[source.claim] = values
    return supplied


role_rules = RoleRules()
