"""The assurance of the sign-in that emergency access requires: declared, or what the provider of
the session offers.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ...access.policy import Assurance
from ...extensions import SignIn, SignInObserver
from . import conf

OFFERED_ACR_KEY = "phi_oidc_emergency_acr"
"""The Django session key of the values that the provider of the session offered at the sign-in."""
MULTI_FACTOR_ACR_VALUES = (
    "https://refeds.org/profile/mfa",
    "http://schemas.openid.net/pape/policies/2007/06/multi-factor",
    "http://idmanagement.gov/ns/assurance/aal/2",
    "http://idmanagement.gov/ns/assurance/aal/3",
    "urn:okta:loa:2fa:any",
    "possessionorinherence",
    "phr",
    "phrh",
)
"""Published values that mean several factors or phishing resistance, the weakest first.

Spec: REFEDS MFA; PAPE 1.0; NIST SP 800-63B 4; OIDC EAP ACR Values 1.0."""


def select_offered_acr_values(supported: Iterable[str]) -> list[str]:
    """Return the values to ask for if `acr` is not declared. supported: `acr_values_supported` of
    the provider.
    """
    declaration = conf.emergency()
    known = {*supported}
    if declaration is None or declaration.acr is not None:
        return []
    acr_values = []
    for value in MULTI_FACTOR_ACR_VALUES:
        if value in known:
            acr_values.append(value)
    return acr_values


class OfferedAcrObserver(SignInObserver):
    """Stores what the provider offered at the sign-in, because no later request reads its
    metadata.
    """

    def get_session_entries(self, sign_in: SignIn) -> Mapping[str, Any]:
        offered = select_offered_acr_values(sign_in.offered_acr_values)
        if offered:
            return {OFFERED_ACR_KEY: offered}
        return {}


OFFERED_ACR_OBSERVER = OfferedAcrObserver()


def get_emergency_assurance(session: Mapping[str, Any]) -> Assurance:
    """Return what the sign-in of that Django session must meet; an empty one if nothing is declared
    or offered.
    """
    declaration = conf.emergency()
    if declaration is not None and declaration.acr is not None:
        return Assurance(acr=declaration.acr)
    return Assurance(acr=tuple(session.get(OFFERED_ACR_KEY, ())))
