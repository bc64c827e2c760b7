"""The option `third_party_login` of a provider. No Django."""

from dataclasses import dataclass, field
from typing import Any, Self

from ...config.option_grades import LATER
from ...config.option_parsers import parse_bool
from ...config.sections import ProviderOption


@dataclass(frozen=True, slots=True, kw_only=True)
class ThirdPartyLoginDeclaration(ProviderOption):
    """Whether another site may start a sign-in with the provider. Declared as True or False."""

    is_allowed: bool = field(metadata=LATER)
    """Whether it may."""

    @classmethod
    def parse(cls, path: str, value: Any) -> Self:
        return cls(is_allowed=parse_bool(path, value))
