"""The option `federation` of a provider: how OpenID Federation replaces discovery and registration.
No Django.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ...config.client_keys import ClientKey, parse_client_keys
from ...config.option_grades import RARE
from ...config.option_parsers import (
    checked,
    fail,
    is_url,
    parse_each,
    parse_mapping,
    parse_string,
    parse_strings,
)
from ...config.providers import ProviderDeclaration
from ...config.sections import ProviderOption

MAX_ENTITY_IDENTIFIER_LENGTH = 255
_PRIVATE_MEMBERS = frozenset({"d", "k"})

TrustMark = tuple[tuple[str, str], ...]
"""The members of an entry of `trust_marks`, so that a declaration can be hashed."""


def is_entity_identifier(url: str) -> bool:
    """Return whether url can identify an entity. Requires http only on loopback:
    `validate_https_url` refuses others.

    Spec: OpenID Federation 1.0 1.2 (Entity Identifier).
    """
    return is_url(url, forbidden=" ?#@") and len(url) <= MAX_ENTITY_IDENTIFIER_LENGTH


_RULE = (
    "must be an https URL without query or fragment, "
    f"{MAX_ENTITY_IDENTIFIER_LENGTH} characters at most"
)
_parse_entity_identifier = checked(parse_string, is_entity_identifier, _RULE)
_parse_authority_hints = checked(
    parse_strings,
    lambda urls: urls and all(map(is_entity_identifier, urls)),
    f"each {_RULE}; at least one",
)
_parse_federation_keys = checked(
    parse_client_keys,
    lambda keys: keys and all(key.use == "sig" for key in keys),
    "must be keys to sign",
)


def _parse_trust_anchor_keys(path: str, value: Any) -> str:
    """Return the JWKS as JSON. Check E131 reports a set without a usable key.

    Spec: OpenID Federation 1.0 3.1.1 (jwks).
    """
    if isinstance(value, Path):
        try:
            value = json.loads(value.read_bytes())
        except OSError:
            fail(path, "names a file that can't be read")
        except ValueError:
            fail(path, "names a file that is no JSON")

    keys = None
    if isinstance(value, Mapping):
        keys = value.get("keys")

    if (
        not isinstance(keys, list)
        or not keys
        or not all(isinstance(key, Mapping) and key.get("kid") for key in keys)
    ):
        fail(
            path,
            "must be a JWKS with a kid for each key: a "
            "dictionary, or the pathlib.Path of a JSON file",
        )
    if any(_PRIVATE_MEMBERS & key.keys() for key in keys):
        fail(path, "contains a private key: the trust anchor publishes public keys")
    return json.dumps({"keys": keys})


def _parse_trust_marks(path: str, value: Any) -> tuple[TrustMark, ...]:
    if not isinstance(value, list | tuple):
        fail(path, "must be a list of dictionaries")
    return tuple(
        parse_each(
            lambda number, raw: _parse_trust_mark(f"{path}[{number}]", raw), enumerate(value)
        ).values()
    )


def _parse_trust_mark(path: str, raw: Any) -> TrustMark:
    members = parse_mapping(path, raw)
    texts = [*members.keys(), *members.values()]
    if "trust_mark" not in members or not all(isinstance(text, str) and text for text in texts):
        fail(path, "must have trust_mark, the JWT, and only strings")
    return tuple(members.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationDeclaration(ProviderOption):
    """Membership in a federation. Option names are those of OpenID Federation 1.0, where it has
    one.
    """

    trust_anchor: Annotated[str, _parse_entity_identifier] = field(metadata=RARE)
    """The entity identifier of the trust anchor, at which each trust chain must end."""
    trust_anchor_keys: Annotated[str, _parse_trust_anchor_keys] = field(metadata=RARE)
    """Its public keys, from the operator of the federation: a JWKS as a dictionary, or the
    `pathlib.Path` of a JSON file.
    """
    authority_hints: Annotated[tuple[str, ...], _parse_authority_hints] = field(metadata=RARE)
    """The entity identifiers of the portal's immediate superiors: the trust anchor, or an
    intermediate.
    """
    keys: Annotated[tuple[ClientKey, ...], _parse_federation_keys] = field(metadata=RARE)
    """The portal's federation keys, in the form of [`client_keys`](#client_keys), but other keys:
    the first one signs the entity configuration.
    """
    organization_name: str = field(default="", metadata=RARE)
    """Published in the entity configuration. Default: not published."""
    contacts: tuple[str, ...] = field(default=(), metadata=RARE)
    """Published in the entity configuration, such as mail addresses. Default: not published."""
    trust_marks: Annotated[tuple[TrustMark, ...], _parse_trust_marks] = field(
        default=(), repr=False, metadata=RARE
    )
    """Published in the entity configuration: a list of dictionaries with `trust_mark_type` and
    `trust_mark`, the JWT.
    Default: not published.
    """

    def list_faults(self, provider: ProviderDeclaration) -> Iterator[str]:
        """Yield what contradicts automatic registration, by which the provider knows only the
        public keys of the portal.

        Spec: OpenID Federation 1.0 12.1, 12.1.1.2; 3.1.1 (jwks), for the keys.
        """
        if not is_entity_identifier(provider.client_id):
            yield (
                "['client_id'] is the portal's entity identifier with "
                "federation: an https URL without query or fragment."
            )
        if provider.token_endpoint_auth_method not in (
            "private_key_jwt",
            "self_signed_tls_client_auth",
        ):
            yield (
                "['token_endpoint_auth_method'] is private_key_jwt or "
                "self_signed_tls_client_auth with federation."
            )
        if not provider.request_object_signing_alg and provider.par != "require":
            yield "['federation'] requires request_object_signing_alg, or par: require."
        for option in ("metadata_overrides", "metadata_url", "metadata_issuer"):
            if getattr(provider, option):
                yield (
                    f"[{option!r}] would replace what the trust chain "
                    "has verified: not with federation."
                )
        if {key.thumbprint for key in self.keys} & {key.thumbprint for key in provider.client_keys}:
            yield "['federation']['keys'] has a key of client_keys: use separate keys."
