"""The blocks of settings in the pages of providers, written from the recipes in the code: `make reference`."""

import re
from pathlib import Path

from django_phi_oidc.contrib.adoption.subcommands._provider_recipe import (
    format_settings,
    list_variable_lines,
)
from django_phi_oidc.contrib.doctor.known_providers import PROVIDERS_BY_SLUG
from django_phi_oidc.contrib.doctor.known_providers.definitions import Recipe
from tests.support.manual_blocks import ROOT

FOLDER = Path("/srv/portal/secrets")
BLOCKS = {
    name: re.compile(rf"(<!-- tested: {name} -->\n```\w+\n).*?(```)", re.DOTALL) for name in ("settings", "variables")
}
PAGES_BY_SLUG = {slug: ROOT / known.get_page() for slug, known in PROVIDERS_BY_SLUG.items()}


def regenerate(text: str, recipe: Recipe) -> str:
    """Return the page with the blocks of this recipe."""
    variables = "\n".join(list_variable_lines(recipe, folder=FOLDER)) + "\n"
    for name, block in {"settings": format_settings(recipe), "variables": variables}.items():
        text = BLOCKS[name].sub(lambda hit, block=block: f"{hit[1]}{block}{hit[2]}", text)
    return text


if __name__ == "__main__":
    for slug, page in PAGES_BY_SLUG.items():
        if recipe := PROVIDERS_BY_SLUG[slug].recipe:
            page.write_text(regenerate(page.read_text(), recipe))
