"""Checks of a declaration against what is known of its provider. No Django."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ...config.providers import ProviderDeclaration
from ...provider.metadata_documents import find_metadata_source
from ..common.provider_findings import ProviderFinding, sanitize_text
from .known_providers import find_known_provider
from .known_providers.definitions import KnownProvider, list_differences


def check_known_provider(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> Iterator[ProviderFinding]:
    """Report which provider it is, the faults that the metadata do not show, and what differs from
    its recipe.

    Spec: Core 8 and Back-Channel Logout 2.4, whose `sub` Keycloak up to 26.1 deviates from.
    """
    known = find_known_provider(members)
    if known is None:
        return

    if known.slug:
        page = f"; its settings: {known.get_page()}"
    else:
        page = ""

    yield ProviderFinding(check="provider", level="ok", text=f"recognized as {known.name}{page}")
    for fault in known.faults:
        if fault.applies(declaration):
            yield ProviderFinding(
                check=fault.check,
                level=fault.level,
                code=fault.code,
                text=fault.text,
                remedy=fault.remedy,
            )
    is_of_federation = bool(known.recipe and known.recipe.trust_anchor)
    if is_of_federation and find_metadata_source(declaration) is None:
        text = f"{known.name} admits only members of its federation"
        yield build_federation_finding(text, level="failure")
    yield from _compare_with_recipe(known, declaration)


def _compare_with_recipe(
    known: KnownProvider, declaration: ProviderDeclaration
) -> Iterator[ProviderFinding]:
    for option in list_differences(known.recipe, declaration) if known.recipe else ():
        if option.need == "example":
            example = ", for example"
        else:
            example = ""

        level: Literal["warning", "failure"]
        if option.need == "required":
            level = "failure"
        else:
            level = "warning"

        yield ProviderFinding(
            check="recipe",
            level=level,
            code="recipe_differs",
            text=sanitize_text(
                f"{known.name} needs {option.name}{example} {json.dumps(option.value)}"
            ),
            remedy=option.reason,
        )


def build_federation_finding(text: str, *, level: Literal["warning", "failure"]) -> ProviderFinding:
    """Return the finding about a member of a federation that is declared without it."""
    remedy = "Declare federation: docs/how-to/federation.md."
    return ProviderFinding(
        check="provider", level=level, code="federation_undeclared", text=text, remedy=remedy
    )
