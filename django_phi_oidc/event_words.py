"""The words of the core for its events, on the pages of the audit log."""

from collections.abc import Collection

from django.utils.translation import gettext

from . import conf
from .audit.actions import Action
from .extensions import EventWords
from .oidc.remedies import SEE_MANUAL, find_remedy
from .sessions.models import RevocationStatus


class CoreEventWords(EventWords):
    """Labels of providers, of claims' purposes and of revocations, and remedies for refusals."""

    def find_provider_label(self, name: str) -> str:
        declaration = conf.providers().get(name)
        if declaration is None:
            return ""
        return declaration.label

    def find_detail_label(self, key: str, value: str) -> str:
        if key != "status":
            return ""
        return str(dict(RevocationStatus.choices).get(value, ""))

    def find_remedy(self, action: str, reason: str, provider_error: str) -> str:
        remedy = find_remedy(reason, provider_error)
        if not remedy and action in (Action.LOGIN_REFUSED, Action.TOKEN_REVOCATION_FAILED):
            remedy = SEE_MANUAL

        if remedy:
            return gettext(remedy)
        return ""

    def list_purposes(self) -> Collection[str]:
        return {claim.purpose for claim in conf.claims().values()}


EVENT_WORDS = CoreEventWords()
