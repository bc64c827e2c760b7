"""The option `PATIENT_RESOURCES`. No Django."""

from dataclasses import dataclass, field
from typing import Annotated

from ...config.option_grades import LATER
from ...config.option_parsers import parse_dotted_path


@dataclass(frozen=True, kw_only=True)
class IndividualRightsOptions:
    """The options of the rights of individuals."""

    PATIENT_RESOURCES: Annotated[str, parse_dotted_path] | None = field(
        default=None, metadata=LATER
    )
    """Dotted path of a function from a user to a list of `Type/id`: the resources about this user,
    for [who looked at them](../how-to/privacy-requests.md#list-the-disclosures).
    """
