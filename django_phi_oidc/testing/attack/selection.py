"""Which attacks a run makes: those against one provider, all or of the named rule codes."""

from collections.abc import Sequence

from django.core.management.base import CommandError

from ... import conf
from .runner import Attack, list_attacks


def get_default_provider() -> str:
    """Return the name of the first provider. Raises: CommandError."""
    if not conf.providers():
        raise CommandError("No provider is declared.")
    return next(iter(conf.providers()))


def select_attacks(provider_name: str, codes: Sequence[str] = ()) -> list[Attack]:
    """Return the attacks of those codes, or all. Raises: CommandError where there is none, or no such provider."""
    if provider_name not in conf.providers():
        raise CommandError(f"There is no provider {provider_name}.")
    attacks = list_attacks(conf.providers()[provider_name], claim_names=list(conf.claims()))
    if unknown := set(codes) - {attack.code for attack in attacks}:
        raise CommandError(f"There is no attack for {', '.join(sorted(unknown))}.")
    return [attack for attack in attacks if not codes or attack.code in codes]
