"""What the doctor says of the levels that each sign-in must have. No Django."""

from collections.abc import Mapping
from typing import Any

from ...config.providers import ProviderDeclaration
from ...errors import Code
from ..common.provider_findings import ProviderFinding, sanitize_text


def check_assurance(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> ProviderFinding:
    """Report the levels that each sign-in must have. NOT checked: vectors and methods, which no
    metadata lists.

    Spec: Discovery 3 (acr_values_supported).
    """
    offered = members.get("acr_values_supported")
    for name, values in (
        ("acr_values", declaration.acr_values),
        ("acr_accepted", declaration.acr_accepted),
    ):
        if values and isinstance(offered, list) and not any(value in offered for value in values):
            return ProviderFinding(
                check="assurance",
                level="warning",
                code=Code.ACR_INSUFFICIENT,
                text=sanitize_text(
                    f"none of {', '.join(values)} is among {', '.join(map(str, offered)) or 'none'}"
                ),
                remedy=f"Declare {name} that the metadata lists.",
            )
    required = {
        "acr": declaration.accepted_acr_values,
        "vot": declaration.vtr,
        "one amr of": declaration.amr_required,
    }
    levels = []
    for name, values in required.items():
        if values:
            levels.append(f"{name} {', '.join(values)}")
    if levels:
        text = f"each sign-in needs {'; '.join(levels)}"
    else:
        text = "no level is required"

    if not levels and declaration.provider_requires_mfa:
        text = "several factors are a rule of the provider, which is not verified"
    return ProviderFinding(check="assurance", level="ok", text=sanitize_text(text))
