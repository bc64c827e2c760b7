"""The names of providers on pages."""

from .. import conf


def list_provider_choices() -> list[tuple[str, str]]:
    """Return the declared name and the label of each provider."""
    provider_choices = []
    for name, declaration in conf.providers().items():
        provider_choices.append((name, declaration.label or name))
    return provider_choices


def get_provider_label(name: str) -> str:
    """Return the label of a provider; the name itself if it is not declared any more."""
    return dict(list_provider_choices()).get(name, name)


def find_provider_name(issuer: str) -> str:
    """Return the name of the first provider with that issuer, or an empty text."""
    for name, declaration in conf.providers().items():
        if declaration.issuer == issuer:
            return name
    return ""
