"""What a project declares, parsed once into frozen values: its providers and the claims it keeps. No Django."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from ..errors import DeclarationInvalid
from .client_keys import ALGS_BY_KTY, ClientKey, parse_client_keys

SIGNING_ALGS = ("PS256", "ES256", "EdDSA", "RS256")
"""All that can be allowed for an ID Token. `none` and HS* can't be, so they have no name here."""
PROVIDER_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of a provider: it stands in redirect URIs, which a provider compares byte for byte, and which browsers rewrite."""

MAX_RETENTION = timedelta(days=36_525)
CLAIM_REFERENCES = frozenset({"_claim_names", "_claim_sources"})
"""What stands in for distributed and aggregated claims, which are never fetched. Spec: OIDC Core 5.6.2."""

ClaimRetention = Literal["session"] | timedelta | None
ClientAuthMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]
AssertionAudience = Literal["issuer", "token_endpoint"]
SubjectType = Literal["pairwise", "public"]
RevocationRequirement = Literal["required", "best_effort"]
TokenHandling = Literal["keep", "discard"]
EndSessionMethod = Literal["get", "post"]
ProvisioningMode = Literal["create", "existing", "invitation"]
PARMode = Literal["auto", "require", "never"]
ClaimsRequestMode = Literal["scopes", "parameter", "parameter_null"]
SecurityProfile = Literal["baseline", "heart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeDeclaration:
    """A scope that the project asks for beside those of its claims, and why."""

    name: str
    purpose: str
    """HL7 v3 PurposeOfUse code."""
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDeclaration:
    """One OpenID Provider as the project declared it. Names are those of OIDC Core and RFC 7591 where they have one."""

    name: str
    issuer: str
    """As the provider's metadata has it, byte for byte."""
    client_id: str
    """The portal's own, as the provider gave it."""
    client_secret: str = field(default="", repr=False)
    """Not with `private_key_jwt`. Default: required otherwise."""
    label: str = field(default="", compare=False)  # a lazy one is another text in each language
    """What people read where they choose among several providers; may be [a lazy translation](../how-to/translate.md).
    Default: the name."""
    profile: SecurityProfile = "baseline"
    """`baseline`, or `heart`: the HEART profiles of OAuth 2.0 and OpenID Connect, [below](#the-profile-heart)."""
    token_endpoint_auth_method: ClientAuthMethod = "client_secret_basic"
    """`client_secret_basic`, `client_secret_post`, `private_key_jwt`."""
    client_keys: tuple[ClientKey, ...] = ()
    """For `private_key_jwt`: PEM text, `pathlib.Path` of a PEM file, or a list; the first signs, all are in
    `oidc/jwks.json`. Default: required with it."""
    token_endpoint_auth_signing_alg: str = ""
    """Of client assertions: PS256, ES256, EdDSA, or, with warning W011, RS256. Default: what fits the first key."""
    client_assertion_audience: AssertionAudience = "issuer"
    """`issuer` or, with warning W012, `token_endpoint`."""
    par: PARMode = "auto"
    """Pushed authorization requests: `auto` where the provider takes them, `require`, or, with warning W013, `never`,
    which a provider that demands them does not go with (`par_unsupported`)."""
    claims_request: ClaimsRequestMode = "scopes"
    """`scopes`, or `parameter`: claims asked for one by one; `parameter_null` for providers that read null alone."""
    resource_scopes: tuple[ScopeDeclaration, ...] = ()
    """Further scopes, name → `{"purpose": …, "basis": …}`; `offline_access` among them."""
    id_token_signed_response_alg: tuple[str, ...] = SIGNING_ALGS
    """Allowed algorithms; `none` and HS* can't be."""
    userinfo_signed_response_alg: tuple[str, ...] = ()
    """When set, UserInfo must be signed with one of these; otherwise it may be, as ID Tokens are. Default: not set."""
    subject_type: SubjectType = "pairwise"
    """`pairwise` or, with warning W001, `public`."""
    acr_values: tuple[str, ...] = ()
    """Sent with the authorization request, and verified on return. Default: not sent."""
    max_age: int | None = None
    """Seconds: sent with the authorization request, and verified on return. Default: not sent."""
    allow_auth_time_zero: bool = False
    """With warning W014: an `auth_time` of 0 is taken for "not told", and passes `max_age`."""
    prompt: str = ""
    """Sent with the authorization request. Default: not sent."""
    ui_locales: str = ""
    """Sent with the authorization request. Default: not sent."""
    login_hint: str = ""
    """Sent with the authorization request: one for everybody, such as a domain, never about a person.
    Default: not sent."""
    leeway: timedelta = timedelta(seconds=30)
    """How far clocks may differ: timedelta or seconds, at most 120."""
    ca_bundle: str = ""
    """File of the CA that signed the provider's certificate; nothing turns verification off. Default: system."""
    proxy: str = field(default="", repr=False)  # it may hold a password
    """URL of a proxy; no environment variable is read."""
    allow_loopback_http: bool = False
    """http on loopback addresses, for development."""
    max_access_token_lifetime: timedelta = timedelta(hours=24)
    """timedelta or seconds; over an hour, or unsaid, raises an alert."""
    revocation: RevocationRequirement = "required"
    """`required`, or `best_effort` for a provider without a revocation endpoint."""
    tokens: TokenHandling = "keep"
    """`keep`, or `discard`: the provider's tokens are revoked as soon as the sign-in is done, and never stored."""
    end_session_method: EndSessionMethod = "get"
    """How the browser is sent to the provider to end its session there: `get`, or `post`, a form, which keeps the hint
    out of every URL."""
    allow_logout_token_without_exp: bool = False
    """With warning W022: a logout token without `exp` is good for two minutes after its `iat`."""
    trusted_audiences: tuple[str, ...] = ()
    """Further audiences that an ID Token may name."""
    provisioning: ProvisioningMode = "create"
    """What happens at a first sign-in: `create` an account, `existing`: an administrator
    [linked the person](../how-to/link-subjects.md) before, or `invitation`: the person enters an
    [activation code](../how-to/activation-codes.md)."""

    def get_assertion_alg(self, key: ClientKey) -> str:
        """Return what that key signs client assertions with, now or once it is the first: as declared, if it can."""
        fitting = ALGS_BY_KTY[key.kty]
        return self.token_endpoint_auth_signing_alg if self.token_endpoint_auth_signing_alg in fitting else fitting[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimDeclaration:
    """One claim that the project asks for, why, and for how long it keeps the value."""

    name: str
    purpose: str
    """HL7 v3 PurposeOfUse code: what the claim may be opened for."""
    basis: str
    """In words: why the law lets you ask for it."""
    retention: ClaimRetention
    """`"session"`, a positive timedelta (or seconds), or None: used at sign-in, never stored."""
    essential: bool = False
    """True: without it the sign-in is refused (`claim_missing`)."""
    members: tuple[str, ...] = ()
    """Of a claim that is an object, such as `address`: the names of the members that are kept, all others being dropped
    at the door. A value that is no object is not kept then. Default: all of it."""


LIST_OPTIONS = ("id_token_signed_response_alg", "userinfo_signed_response_alg", "acr_values", "trusted_audiences")
STRING_OPTIONS = (
    *("issuer", "client_id", "client_secret", "label", "ca_bundle", "proxy"),
    *("prompt", "ui_locales", "login_hint", "token_endpoint_auth_signing_alg"),
)
CHOICE_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "profile": get_args(SecurityProfile),
    "token_endpoint_auth_method": get_args(ClientAuthMethod),
    "client_assertion_audience": get_args(AssertionAudience),
    "par": get_args(PARMode),
    "claims_request": get_args(ClaimsRequestMode),
    "subject_type": get_args(SubjectType),
    "revocation": get_args(RevocationRequirement),
    "tokens": get_args(TokenHandling),
    "end_session_method": get_args(EndSessionMethod),
    "provisioning": get_args(ProvisioningMode),
}


def parse_provider(name: str, raw: Mapping[str, Any]) -> ProviderDeclaration:
    """Return the provider that raw declares.

    Raises: DeclarationInvalid, which names the setting and never its value.
    """
    where = f"PROVIDERS[{name!r}]"
    _validate_provider_name(where, name)
    values = _parse_options(where, raw, ProviderDeclaration)
    for key in LIST_OPTIONS:
        if key in values:
            values[key] = _parse_strings(f"{where}[{key!r}]", values[key])
    for key in ("leeway", "max_access_token_lifetime"):
        if key in values:
            values[key] = _parse_duration(f"{where}[{key!r}]", values[key])
    for key in STRING_OPTIONS:
        if key in values and not isinstance(values[key], str):
            raise DeclarationInvalid(f"{where}[{key!r}] must be a string.")
    for key, choices in CHOICE_OPTIONS.items():
        if key in values and values[key] not in choices:
            raise DeclarationInvalid(f"{where}[{key!r}] must be one of {', '.join(choices)}.")
    if "client_keys" in values:
        values["client_keys"] = parse_client_keys(f"{where}['client_keys']", values["client_keys"])
    if "resource_scopes" in values:
        values["resource_scopes"] = _parse_scopes(f"{where}['resource_scopes']", values["resource_scopes"])
    provider = ProviderDeclaration(name=name, **values)
    _validate_provider(where, provider)
    _validate_client_authentication(where, provider)
    if provider.profile == "heart":
        _validate_heart_profile(where, provider)
    return provider


def parse_claim(name: str, raw: Mapping[str, Any]) -> ClaimDeclaration:
    """Return the claim that raw declares.

    Raises: DeclarationInvalid when purpose, basis or retention is missing, or anything else is not as it must be.
    """
    where = f"CLAIMS[{name!r}]"
    _validate_name(where, name, max_length=255)
    if name in CLAIM_REFERENCES:
        raise DeclarationInvalid(f"{where}: distributed and aggregated claims are refused.")
    values = _parse_options(where, raw, ClaimDeclaration)
    _validate_purpose_and_basis(where, values)
    retention = values["retention"]
    if retention not in ("session", None):
        values["retention"] = _parse_duration(f"{where}['retention']", retention)
        if not timedelta(0) < values["retention"] <= MAX_RETENTION:
            raise DeclarationInvalid(f"{where}['retention'] must be positive, and 100 years at most.")
    if not isinstance(values.get("essential", False), bool):
        raise DeclarationInvalid(f"{where}['essential'] must be True or False.")
    if "members" in values:
        values["members"] = _parse_members(f"{where}['members']", values["members"])
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


def _validate_provider(option_path: str, provider: ProviderDeclaration) -> None:
    if not _is_issuer_url(provider.issuer):
        raise DeclarationInvalid(
            f"{option_path}['issuer'] must be an https URL without query or fragment (Discovery 3)."
        )
    if len(provider.issuer) > 255:
        raise DeclarationInvalid(f"{option_path}['issuer'] must be at most 255 ASCII characters.")
    if provider.proxy and not provider.proxy.startswith(("http://", "https://")):
        raise DeclarationInvalid(f"{option_path}['proxy'] must be an http or https URL.")
    if not provider.client_id:
        raise DeclarationInvalid(f"{option_path}['client_id'] is empty.")
    for key in ("id_token_signed_response_alg", "userinfo_signed_response_alg"):
        if set(getattr(provider, key)) - set(SIGNING_ALGS):
            raise DeclarationInvalid(f"{option_path}[{key!r}] may name {', '.join(SIGNING_ALGS)} alone.")
    if not provider.id_token_signed_response_alg:
        raise DeclarationInvalid(f"{option_path}['id_token_signed_response_alg'] is empty.")
    if provider.max_age is not None and (type(provider.max_age) is not int or provider.max_age < 0):
        raise DeclarationInvalid(f"{option_path}['max_age'] must be a number of seconds, or None.")
    if not timedelta(0) <= provider.leeway <= timedelta(seconds=120):
        raise DeclarationInvalid(f"{option_path}['leeway'] must be between 0 and 120 seconds.")
    if provider.max_access_token_lifetime <= timedelta(0):
        raise DeclarationInvalid(f"{option_path}['max_access_token_lifetime'] must be positive.")
    for key in ("allow_loopback_http", "allow_auth_time_zero", "allow_logout_token_without_exp"):
        if type(getattr(provider, key)) is not bool:
            raise DeclarationInvalid(f"{option_path}[{key!r}] must be True or False.")


def _validate_client_authentication(option_path: str, provider: ProviderDeclaration) -> None:
    if provider.token_endpoint_auth_method != "private_key_jwt":
        if not provider.client_secret:
            raise DeclarationInvalid(f"{option_path}['client_secret'] is empty.")
        if provider.client_keys or provider.token_endpoint_auth_signing_alg:
            raise DeclarationInvalid(f"{option_path}['client_keys'] are for private_key_jwt alone.")
        return
    if provider.client_secret:
        raise DeclarationInvalid(f"{option_path}['client_secret'] has no use with private_key_jwt: leave it out.")
    if not provider.client_keys:
        raise DeclarationInvalid(f"{option_path}['client_keys'] is empty.")
    algs = ALGS_BY_KTY[provider.client_keys[0].kty]
    if provider.token_endpoint_auth_signing_alg not in ("", *algs):
        raise DeclarationInvalid(
            f"{option_path}['token_endpoint_auth_signing_alg']: the first key signs {', '.join(algs)}."
        )


def _validate_heart_profile(option_path: str, provider: ProviderDeclaration) -> None:
    """What the HEART profiles ask of a client, no option takes back; their lifetimes are judged with the tokens.

    Spec: HEART's profile of OAuth 2.0 (Requests to the Token Endpoint; Token Revocation and Introspection).
    """
    asked = {
        "token_endpoint_auth_method": provider.token_endpoint_auth_method == "private_key_jwt",
        "revocation": provider.revocation == "required",
        "allow_auth_time_zero": not provider.allow_auth_time_zero,
    }
    if loosened := [key for key, kept in asked.items() if not kept]:
        raise DeclarationInvalid(f"{option_path}['profile'] heart does not go with its {', '.join(loosened)}.")


def _is_issuer_url(url: str) -> bool:
    """http passes here, for an OP on loopback. urlsplit strips some characters that a comparison of issuers meets."""
    if not url.isascii() or not url.isprintable() or set(" ?#@").intersection(url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _validate_provider_name(option_path: str, name: Any) -> None:
    if not isinstance(name, str) or not PROVIDER_NAME_PATTERN.fullmatch(name):
        raise DeclarationInvalid(
            f"{option_path}: a name is 1 to 64 letters and digits, and . _ - after the first of them."
        )


def _validate_name(option_path: str, name: Any, *, max_length: int) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= max_length or not name.isprintable():
        raise DeclarationInvalid(f"{option_path}: a name is 1 to {max_length} printable characters.")


def _parse_options(option_path: str, raw: Mapping[str, Any], declaration_class: type) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise DeclarationInvalid(f"{option_path} must be a dictionary.")
    known = {f.name: f for f in fields(declaration_class) if f.name != "name"}
    unknown = sorted(str(key) for key in raw if key not in known)
    if unknown:
        raise DeclarationInvalid(f"{option_path} has no option {', '.join(unknown)}.")
    missing = sorted(key for key, f in known.items() if f.default is MISSING and key not in raw)
    if missing:
        raise DeclarationInvalid(f"{option_path} lacks {', '.join(missing)}.")
    return dict(raw)


def _validate_purpose_and_basis(option_path: str, values: Mapping[str, Any]) -> None:
    for key in ("purpose", "basis"):
        if not isinstance(values[key], str) or not values[key].strip():
            raise DeclarationInvalid(f"{option_path}[{key!r}] must say something.")
    if len(values["purpose"]) > 32:
        raise DeclarationInvalid(f"{option_path}['purpose'] must be a PurposeOfUse code, 32 characters at most.")


def _parse_members(option_path: str, value: Any) -> tuple[str, ...]:
    members = _parse_strings(option_path, value)
    for member in members:
        _validate_name(f"{option_path}: {member!r}", member, max_length=255)
    if not members or len(set(members)) != len(members):
        raise DeclarationInvalid(f"{option_path} must name at least one member, and each once.")
    return members


def _parse_scopes(option_path: str, value: Any) -> tuple[ScopeDeclaration, ...]:
    if not isinstance(value, Mapping):
        raise DeclarationInvalid(f"{option_path} must be a dictionary.")
    return tuple(_parse_scope(f"{option_path}[{name!r}]", name, raw) for name, raw in value.items())


def _parse_scope(option_path: str, name: Any, raw: Any) -> ScopeDeclaration:
    """Spec: RFC 6749 3.3 (scope-token)."""
    _validate_name(option_path, name, max_length=255)
    if not name.isascii() or set(name) & set(' "\\'):
        raise DeclarationInvalid(f"{option_path}: a scope is visible ASCII without quotation mark and backslash.")
    if name == "openid":
        raise DeclarationInvalid(f"{option_path}: openid is asked for anyway.")
    values = _parse_options(option_path, raw, ScopeDeclaration)
    _validate_purpose_and_basis(option_path, values)
    return ScopeDeclaration(name=name, **values)


def _parse_strings(option_path: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise DeclarationInvalid(f"{option_path} must be a list of strings.")
    return tuple(value)


def _parse_duration(option_path: str, value: Any) -> timedelta:
    """Seconds, as JSON has them, or a timedelta."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return timedelta(seconds=value)
        except (ValueError, OverflowError) as error:
            raise DeclarationInvalid(f"{option_path} is no number of seconds.") from error
    raise DeclarationInvalid(f"{option_path} must be a timedelta or a number of seconds.")
