"""The option `signals` of a provider: the security events that it sends, and how. No Django."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ...config.option_grades import LATER, RARE
from ...config.option_parsers import checked, is_url, parse_string, parse_strings
from ...config.sections import ProviderOption

Delivery = Literal["push", "poll"]
TokenClaimsChange = Literal["end", "refresh"]

_parse_transmitter = checked(
    parse_string,
    lambda url: not url or is_url(url, forbidden=" ?#@"),
    "must be an https URL without query or fragment",
)
_parse_metadata_url = checked(
    parse_string,
    lambda url: not url or is_url(url, forbidden=" #@"),
    "must be an https URL without fragment",
)
_parse_event_types = checked(
    parse_strings,
    lambda uris: all(":" in uri and uri.isprintable() for uri in uris),
    "must be a list of event type URIs",
)


def _is_header_value(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip()


_parse_header_value = checked(
    parse_string, _is_header_value, "must be visible ASCII, as the value of a header"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalsDeclaration(ProviderOption):
    """A stream of security events of the OpenID Shared Signals Framework 1.0 (SSF)."""

    delivery: Delivery = field(metadata=LATER)
    """`push`: the transmitter posts each event to `oidc/ssf/events/` (RFC 8935); `poll`: a task of
    the portal fetches them (RFC 8936).
    """
    transmitter: Annotated[str, _parse_transmitter] = field(default="", metadata=RARE)
    """The issuer of the events, byte for byte, if it is another one. Default: `issuer`."""
    metadata_url: Annotated[str, _parse_metadata_url] = field(default="", metadata=RARE)
    """URL of the transmitter's metadata, if it is elsewhere. Default:
    `.well-known/ssf-configuration` of the transmitter.
    """
    audience: tuple[str, ...] = field(default=(), metadata=LATER)
    """The values that `aud` of the events may have. Default: `client_id`."""
    push_authorization: Annotated[str, _parse_header_value] = field(
        default="", repr=False, metadata=LATER
    )
    """The `Authorization` header of deliveries by `push`, such as `Bearer …`, which `phi_oidc
    signals create` sends to the transmitter. Default: none: the signature alone authenticates an
    event.
    """
    access_token: Annotated[str, _parse_header_value] = field(default="", repr=False, metadata=RARE)
    """A Bearer token for the transmitter's interface. Default: one by the grant
    `client_credentials`, with the scopes `ssf.read` and `ssf.manage`.
    """
    events_requested: Annotated[tuple[str, ...], _parse_event_types] = field(
        default=(), metadata=LATER
    )
    """The URIs of the event types that `phi_oidc signals create` and `update` request. Default:
    those that have an effect here.
    """
    token_claims_change: TokenClaimsChange = field(default="end", metadata=LATER)
    """When claims of the person have changed: `end` their sessions, so that the next sign-in has
    the new claims; or `refresh` only the access tokens, at their next use.
    """
    allow_draft_events: bool = field(default=False, metadata=RARE)
    """With warning W140: accept events in the form of drafts before SSF 1.0, as login.gov sends
    them.
    """
