"""What a project declares, parsed once into frozen values: its providers and the claims it keeps. No Django."""

import ipaddress
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from .errors import DeclarationInvalid

SIGNING_ALGS = ("PS256", "ES256", "EdDSA", "RS256")
"""All that can be allowed for an ID Token. `none` and HS* can't be, so they have no name here."""

LONGEST_RETENTION = timedelta(days=36_525)

Retention = Literal["session"] | timedelta | None
AuthMethod = Literal["client_secret_basic", "client_secret_post"]
SubjectType = Literal["pairwise", "public"]
RevocationNeed = Literal["required", "best_effort"]
Provisioning = Literal["create"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDeclaration:
    """One OpenID Provider as the project declared it. Names are those of OIDC Core and RFC 7591 where they have one."""

    name: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    token_endpoint_auth_method: AuthMethod = "client_secret_basic"
    id_token_signed_response_alg: tuple[str, ...] = SIGNING_ALGS
    subject_type: SubjectType = "pairwise"
    acr_values: tuple[str, ...] = ()
    max_age: int | None = None
    """Seconds."""
    prompt: str = ""
    ui_locales: str = ""
    leeway: timedelta = timedelta(seconds=30)
    ca_bundle: str = ""
    proxy: str = field(default="", repr=False)
    """URL; it may hold a password."""
    allow_loopback_http: bool = False
    max_access_token_lifetime: timedelta = timedelta(hours=24)
    revocation: RevocationNeed = "required"
    trusted_audiences: tuple[str, ...] = ()
    provisioning: Provisioning = "create"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimDeclaration:
    """One claim that the project asks for, why, and for how long it keeps the value."""

    name: str
    purpose: str
    """HL7 v3 PurposeOfUse code."""
    basis: str
    retention: Retention
    """`"session"`, a positive timedelta, or None: used at sign-in, never stored."""
    essential: bool = False


def parse_provider(name: str, raw: Mapping[str, Any]) -> ProviderDeclaration:
    """Return the provider that raw declares.

    Raises: DeclarationInvalid, which names the setting and never its value.
    """
    where = f"PROVIDERS[{name!r}]"
    _check_name(where, name, longest=64)
    values = _known(where, raw, ProviderDeclaration)
    for key in ("id_token_signed_response_alg", "acr_values", "trusted_audiences"):
        if key in values:
            values[key] = _strings(f"{where}[{key!r}]", values[key])
    for key in ("leeway", "max_access_token_lifetime"):
        if key in values:
            values[key] = _duration(f"{where}[{key!r}]", values[key])
    for key in ("issuer", "client_id", "client_secret", "ca_bundle", "proxy", "prompt", "ui_locales"):
        if key in values and not isinstance(values[key], str):
            raise DeclarationInvalid(f"{where}[{key!r}] must be a string.")
    for key, choices in (
        ("token_endpoint_auth_method", AuthMethod),
        ("subject_type", SubjectType),
        ("revocation", RevocationNeed),
        ("provisioning", Provisioning),
    ):
        if key in values and values[key] not in get_args(choices):
            raise DeclarationInvalid(f"{where}[{key!r}] must be one of {', '.join(get_args(choices))}.")
    provider = ProviderDeclaration(name=name, **values)
    _check_provider(where, provider)
    return provider


def parse_claim(name: str, raw: Mapping[str, Any]) -> ClaimDeclaration:
    """Return the claim that raw declares.

    Raises: DeclarationInvalid when purpose, basis or retention is missing, or anything else is not as it must be.
    """
    where = f"CLAIMS[{name!r}]"
    _check_name(where, name, longest=255)
    values = _known(where, raw, ClaimDeclaration)
    for key in ("purpose", "basis"):
        if not isinstance(values[key], str) or not values[key].strip():
            raise DeclarationInvalid(f"{where}[{key!r}] must say something.")
    if len(values["purpose"]) > 32:
        raise DeclarationInvalid(f"{where}['purpose'] must be a PurposeOfUse code, 32 characters at most.")
    retention = values["retention"]
    if retention not in ("session", None):
        values["retention"] = _duration(f"{where}['retention']", retention)
        if not timedelta(0) < values["retention"] <= LONGEST_RETENTION:
            raise DeclarationInvalid(f"{where}['retention'] must be positive, and 100 years at most.")
    if not isinstance(values.get("essential", False), bool):
        raise DeclarationInvalid(f"{where}['essential'] must be True or False.")
    return ClaimDeclaration(name=name, **values)


def is_loopback_http(url: str) -> bool:
    """Say whether url is http on a loopback address: 127.0.0.0/8, [::1] or localhost."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            return False
        return parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False


def _check_provider(where: str, provider: ProviderDeclaration) -> None:
    if not _is_issuer(provider.issuer):
        raise DeclarationInvalid(f"{where}['issuer'] must be an https URL without query or fragment (Discovery 3).")
    if len(provider.issuer) > 255:
        raise DeclarationInvalid(f"{where}['issuer'] must be at most 255 ASCII characters.")
    if provider.proxy and not provider.proxy.startswith(("http://", "https://")):
        raise DeclarationInvalid(f"{where}['proxy'] must be an http or https URL.")
    for key in ("client_id", "client_secret"):
        if not getattr(provider, key):
            raise DeclarationInvalid(f"{where}[{key!r}] is empty.")
    unknown = set(provider.id_token_signed_response_alg) - set(SIGNING_ALGS)
    if unknown or not provider.id_token_signed_response_alg:
        raise DeclarationInvalid(f"{where}['id_token_signed_response_alg'] may name {', '.join(SIGNING_ALGS)} alone.")
    if provider.max_age is not None and (type(provider.max_age) is not int or provider.max_age < 0):
        raise DeclarationInvalid(f"{where}['max_age'] must be a number of seconds, or None.")
    if not timedelta(0) <= provider.leeway <= timedelta(seconds=120):
        raise DeclarationInvalid(f"{where}['leeway'] must be between 0 and 120 seconds.")
    if provider.max_access_token_lifetime <= timedelta(0):
        raise DeclarationInvalid(f"{where}['max_access_token_lifetime'] must be positive.")
    if type(provider.allow_loopback_http) is not bool:
        raise DeclarationInvalid(f"{where}['allow_loopback_http'] must be True or False.")


def _is_issuer(url: str) -> bool:
    """http passes here, for an OP on loopback. urlsplit strips some characters that a comparison of issuers meets."""
    if not url.isascii() or not url.isprintable() or set(" ?#@").intersection(url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_name(where: str, name: Any, *, longest: int) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= longest or not name.isprintable():
        raise DeclarationInvalid(f"{where}: a name is 1 to {longest} printable characters.")


def _known(where: str, raw: Mapping[str, Any], declared: type) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise DeclarationInvalid(f"{where} must be a dictionary.")
    known = {f.name: f for f in fields(declared) if f.name != "name"}
    unknown = sorted(str(key) for key in raw if key not in known)
    if unknown:
        raise DeclarationInvalid(f"{where} has no option {', '.join(unknown)}.")
    missing = sorted(key for key, f in known.items() if f.default is MISSING and key not in raw)
    if missing:
        raise DeclarationInvalid(f"{where} lacks {', '.join(missing)}.")
    return dict(raw)


def _strings(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise DeclarationInvalid(f"{where} must be a list of strings.")
    return tuple(value)


def _duration(where: str, value: Any) -> timedelta:
    """Seconds, as JSON has them, or a timedelta."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return timedelta(seconds=value)
        except (ValueError, OverflowError) as error:
            raise DeclarationInvalid(f"{where} is no number of seconds.") from error
    raise DeclarationInvalid(f"{where} must be a timedelta or a number of seconds.")
