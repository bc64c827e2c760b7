"""What a session keeps of an ID Token: the claims that a later step compares, and the token only as
a logout hint.

Providers put claims about the person into ID Tokens, even claims that minimization drops. So the
token is stored only if all its claims are protocol claims, or if `id_token_hint: "always"` requires
it for each logout.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..audit.events import MAX_ITEMS, Action, NewEvent, Origin
from ..claims.minimization import list_personal_claims
from ..config.providers import IDTokenHint
from ..oidc.refresh import UNCHANGED_CLAIMS, UNCHANGED_CLAIMS_IF_PRESENT

KEPT_CLAIMS = (*UNCHANGED_CLAIMS, *UNCHANGED_CLAIMS_IF_PRESENT, "sid")
"""A refresh compares all but `sid` with the new ID Token (OIDC Core 12.2). A logout sends the hint
only to `iss`, and `sid` if it sends no token.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptIDToken:
    """What a session keeps of a verified ID Token."""

    claims: Mapping[str, Any] = field(repr=False)
    """Those of KEPT_CLAIMS that the token has."""
    token: str = field(default="", repr=False)
    """Empty if it is not kept."""
    personal_claims: tuple[str, ...] = ()
    """Names of the claims about the person in the kept token."""

    @property
    def columns(self) -> dict[str, str | None]:
        """The columns of `OIDCSession` to store."""
        return {"id_token": self.token or None, "id_token_claims": json.dumps(self.claims)}

    def build_events(
        self,
        *,
        origin: Origin,
        now: datetime,
        provider: str,
        subject: str,
        known: tuple[str, ...] = (),
    ) -> list[NewEvent]:
        """Return the events that name the claims about the person in the token. known: those that
        have an event.
        """
        if set(self.personal_claims) <= set(known):
            return []
        event = NewEvent(Action.CLAIM_STORED, origin, now, provider=provider, subject=subject)
        parts = []
        for i in range(0, len(self.personal_claims), MAX_ITEMS):
            parts.append(self.personal_claims[i : i + MAX_ITEMS])
        events = []
        for part in parts:
            events.append(event._replace(detail={"claims": list(part), "place": "id_token"}))
        return events


def reduce_id_token(token: str, claims: Mapping[str, Any], *, policy: IDTokenHint) -> KeptIDToken:
    """Return what a session keeps of a token with these verified claims. policy: `id_token_hint` of
    its provider.
    """
    kept = {}
    for name in KEPT_CLAIMS:
        if name in claims:
            kept[name] = claims[name]
    personal = list_personal_claims(claims)
    if policy == "never" or (personal and policy != "always"):
        return KeptIDToken(claims=kept)
    return KeptIDToken(claims=kept, token=token, personal_claims=personal)
