"""The option `metadata_overrides` of a provider: members of its metadata that are missing or wrong
there. No Django.
"""

from collections.abc import Mapping
from typing import Any

from .option_parsers import (
    Parser,
    checked,
    fail,
    is_secure_url,
    list_unknown_options,
    parse_bool,
    parse_each,
    parse_mapping,
    parse_string,
    parse_strings,
)

MetadataOverrides = tuple[tuple[str, str | bool | tuple[str, ...]], ...]
"""Pairs of a member's name and its value, so that a declaration can be hashed."""

_parse_endpoint = checked(
    parse_string,
    is_secure_url,
    "must be an https URL without fragment",
)


def _parse_response_issuer(path: str, value: Any) -> bool:
    """Spec: RFC 9207 2.4: a client that knows that the provider sends `iss` must not accept a
    response without it.
    """
    if value is True:
        return True
    return fail(path, "can only be True: False would accept responses without iss")


_PARSERS: Mapping[str, Parser] = {
    **dict.fromkeys(
        (
            *(
                "authorization_endpoint",
                "token_endpoint",
                "jwks_uri",
                "userinfo_endpoint",
                "revocation_endpoint",
            ),
            *(
                "introspection_endpoint",
                "end_session_endpoint",
                "pushed_authorization_request_endpoint",
            ),
        ),
        _parse_endpoint,
    ),
    **dict.fromkeys(
        (
            *(
                "prompt_values_supported",
                "subject_types_supported",
                "id_token_signing_alg_values_supported",
            ),
            "dpop_signing_alg_values_supported",
        ),
        parse_strings,
    ),
    "require_pushed_authorization_requests": parse_bool,
    "authorization_response_iss_parameter_supported": _parse_response_issuer,
}


def parse_metadata_overrides(path: str, value: Any) -> MetadataOverrides:
    """Return the overrides. `issuer` is none: it identifies the provider. Raises:
    DeclarationInvalid.
    """
    members = parse_mapping(path, value)
    if "issuer" in members:
        fail(f"{path}['issuer']", "can't be replaced: the metadata must be of the declared issuer")
    if unknown := list_unknown_options(path, members, _PARSERS):
        fail(path, f"has members that can't be replaced: {', '.join(unknown)}".rstrip("."))
    return tuple(
        parse_each(
            lambda name, raw: _PARSERS[name](f"{path}[{name!r}]", raw), members.items()
        ).items()
    )
