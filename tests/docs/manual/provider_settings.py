"""The blocks of settings in the pages of providers, written from the recipes in the code: `make reference`."""

import re
from collections import Counter
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
COMMENT = re.compile(r"(?:^ *# .*\n)+", re.MULTILINE)
COMMON = 3
"""The manual states a reason that so many providers have on the page about all providers."""
PAGES_BY_SLUG = {slug: ROOT / known.get_page() for slug, known in PROVIDERS_BY_SLUG.items()}


def regenerate(text: str, recipe: Recipe) -> str:
    """Return the page with the blocks of this recipe."""
    variables = "\n".join(list_variable_lines(recipe, folder=FOLDER)) + "\n"
    settings = keep_own_comments(format_settings(recipe), recipe)
    for name, block in {"settings": settings, "variables": variables}.items():
        text = BLOCKS[name].sub(lambda hit, block=block: f"{hit[1]}{block}{hit[2]}", text)
    return text


def keep_own_comments(settings: str, recipe: Recipe) -> str:
    """Return the settings with only the comments that are particular to this provider."""
    recipes = [known.recipe for known in PROVIDERS_BY_SLUG.values() if known.recipe]
    counts = Counter(option.reason for each in recipes for option in each.options)
    kept = {option.reason for option in recipe.options if counts[option.reason] < COMMON}

    def replace(comment: re.Match[str]) -> str:
        reason = " ".join(line.strip().removeprefix("# ") for line in comment[0].splitlines())
        return comment[0] if reason in kept else ""

    return COMMENT.sub(replace, settings)


if __name__ == "__main__":
    for slug, page in PAGES_BY_SLUG.items():
        if recipe := PROVIDERS_BY_SLUG[slug].recipe:
            page.write_text(regenerate(page.read_text(), recipe))
