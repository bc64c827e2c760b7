"""Finds the account of a first sign-in by the e-mail address that the provider has verified."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from ...config.providers import ProviderDeclaration
from .declaration import EmailLinkingDeclaration
from .email_match import EmailMatch
from .verified_email import VERIFIED_EMAIL_CLAIMS, find_verified_email


class VerifiedEmailSource:
    """The existing account with a verified e-mail address, if `link_verified_email` permits."""

    claims: Collection[str] = VERIFIED_EMAIL_CLAIMS

    def is_declared(self, declaration: ProviderDeclaration) -> bool:
        return declaration.find_option(EmailLinkingDeclaration) is not None

    def is_in_force(self, declaration: ProviderDeclaration, *, now: datetime) -> bool:
        linking = declaration.find_option(EmailLinkingDeclaration)
        return linking is not None and linking.is_in_force(now)

    def find_identifier(self, *sources: Mapping[str, Any]) -> str:
        return find_verified_email(*sources)

    def create_match(
        self, identifier: str, *, provider: ProviderDeclaration, now: datetime
    ) -> EmailMatch:
        return EmailMatch(address=identifier, provider=provider, now=now)


verified_email_source = VerifiedEmailSource()
