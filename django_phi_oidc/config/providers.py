"""The OpenID Providers of a project, parsed into frozen values. No Django."""

import ipaddress
import re
from abc import ABC
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from ._parsing import (
    checked,
    fail,
    is_url,
    parse_declaration,
    parse_duration,
    parse_each,
    parse_mapping,
    parse_name,
    parse_nonempty,
    parse_printable,
    parse_raw,
    parse_string,
    parse_strings,
)
from .claims import parse_basis, parse_purpose
from .client_keys import ALGS_BY_KTY, ClientKey, parse_client_keys
from .metadata_overrides import MetadataOverrides, parse_metadata_overrides

SIGNING_ALGS = ("PS256", "ES256", "EdDSA", "RS256")
"""Algorithms that an ID Token may be signed with. `none` and HS* can't be allowed."""
MAX_ISSUER_LENGTH = 255
MAX_LEEWAY = timedelta(seconds=120)
PROTOCOL_PARAMETERS = frozenset(
    {"response_type", "response_mode", "redirect_uri", "scope", "state", "nonce", "acr_values", "max_age", "claims"}
    | {"registration", "id_token_hint"}
)
"""Authorization request parameters that the package sets, or that would change how the response must be processed."""
PROTOCOL_PARAMETER_PREFIXES = ("client_", "code_challenge", "request")
END_SESSION_PROTOCOL_PARAMETERS = frozenset({"id_token_hint", "logout_hint", "post_logout_redirect_uri", "state"})
"""Logout request parameters that the package sets; and those that begin with `client_`."""
_PARAMETER_NAME_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")

ClientAuthMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]
AssertionAudience = Literal["issuer", "token_endpoint"]
SubjectType = Literal["pairwise", "public"]
RevocationRequirement = Literal["required", "best_effort"]
TokenHandling = Literal["keep", "discard"]
EndSessionMethod = Literal["get", "post"]
IDTokenHint = Literal["minimal", "always", "never"]
ProvisioningMode = Literal["create", "existing", "invitation"]
PARMode = Literal["auto", "require", "never"]
ClaimsRequestMode = Literal["scopes", "parameter", "parameter_null"]
ReauthenticationMode = Literal["verify", "request", "never"]
SecurityProfile = Literal["baseline", "heart"]


class Label(ABC):  # noqa: B024 -- a register of types
    """A string, or a lazy translation, whose type the framework's side registers."""


Label.register(str)
_parse_issuer = checked(
    parse_string,
    # http is accepted here for a provider on a loopback address; check E005 refuses it elsewhere.
    lambda url: is_url(url, forbidden=" ?#@") and len(url) <= MAX_ISSUER_LENGTH,
    f"must be an https URL without query or fragment (Discovery 3), {MAX_ISSUER_LENGTH} characters at most",
)
_parse_proxy = checked(
    parse_string, lambda url: not url or url.startswith(("http://", "https://")), "must be an http or https URL"
)
_parse_leeway = partial(parse_duration, minimum=timedelta(0), maximum=MAX_LEEWAY)
_parse_label = checked(parse_raw, lambda label: isinstance(label, Label), "must be a string")
_parse_algs = checked(parse_strings, set(SIGNING_ALGS).issuperset, f"may contain only {', '.join(SIGNING_ALGS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeDeclaration:
    """A scope that the project requests in addition to those of its claims, and why."""

    name: str
    purpose: Annotated[str, parse_purpose]
    """HL7 v3 PurposeOfUse code."""
    basis: Annotated[str, parse_basis]


def _parse_scopes(path: str, value: Any) -> tuple[ScopeDeclaration, ...]:
    scopes = parse_mapping(path, value).items()
    return tuple(parse_each(lambda name, raw: _parse_scope(f"{path}[{name!r}]", name, raw), scopes).values())


def _parse_scope(path: str, name: Any, raw: Any) -> ScopeDeclaration:
    """Spec: RFC 6749 3.3 (scope-token)."""
    parse_printable(path, name)
    if not name.isascii() or set(name) & set(' "\\'):
        fail(path, "must be visible ASCII without quotation mark and backslash")
    if name == "openid":
        fail(path, "is always requested: leave it out")
    return parse_declaration(ScopeDeclaration, path, raw, name=name)


def _parse_max_age(path: str, value: Any) -> int:
    if isinstance(value, timedelta) and not value.microseconds:
        value = value // timedelta(seconds=1)
    return value if type(value) is int and value >= 0 else fail(path, "must be a whole number of seconds, or None")


def _parse_call_count(path: str, value: Any) -> int:
    return value if type(value) is int and value >= 1 else fail(path, "must be a whole number, at least 1")


def _parse_parameters(
    path: str, value: Any, *, protocol_names: Collection[str], protocol_prefixes: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    for name, parameter in parse_mapping(path, value).items():
        if not isinstance(name, str) or not _PARAMETER_NAME_PATTERN.fullmatch(name):
            fail(path, "has a name that no parameter can have")
        if name in protocol_names or name.startswith(protocol_prefixes):
            fail(f"{path}[{name!r}]", "is set by the protocol code")
        parse_printable(f"{path}[{name!r}]", parameter, max_length=1024)
    return tuple(value.items())


_parse_authorization_parameters = partial(
    _parse_parameters, protocol_names=PROTOCOL_PARAMETERS, protocol_prefixes=PROTOCOL_PARAMETER_PREFIXES
)
_parse_end_session_parameters = partial(
    _parse_parameters, protocol_names=END_SESSION_PROTOCOL_PARAMETERS, protocol_prefixes=("client_",)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDeclaration:
    """An OpenID Provider. Option names are those of OIDC Core and RFC 7591 where these have one."""

    name: str
    issuer: Annotated[str, _parse_issuer]
    """As in the provider's metadata, byte for byte."""
    metadata_overrides: Annotated[MetadataOverrides, parse_metadata_overrides] = ()
    """With warning W045: members of the provider's metadata that are missing or wrong there, name → value, such as
    `revocation_endpoint`; [which ones](#metadata_overrides)."""
    client_id: Annotated[str, parse_nonempty]
    """The client identifier that the provider issued to the portal."""
    client_secret: str = field(default="", repr=False)
    """Not with `private_key_jwt`. Default: required otherwise."""
    label: Annotated[str, _parse_label] = field(default="", compare=False)  # a lazy translation has no fixed value
    """Text for the choice among several providers; may be [a lazy translation](../how-to/translate.md).
    Default: the name."""
    profile: SecurityProfile = "baseline"
    """`baseline`, or `heart`: the HEART profiles of OAuth 2.0 and OpenID Connect, [below](#the-profile-heart)."""
    token_endpoint_auth_method: ClientAuthMethod = "client_secret_basic"
    """`client_secret_basic`, `client_secret_post`, `private_key_jwt`."""
    client_keys: Annotated[tuple[ClientKey, ...], parse_client_keys] = ()
    """For `private_key_jwt`: PEM text, `pathlib.Path` of a PEM file, or a list; the first key signs, all are published
    in `oidc/jwks.json`. Default: required with it."""
    token_endpoint_auth_signing_alg: str = ""
    """Client assertions: PS256, ES256, EdDSA, or, with warning W011, RS256. Default: fits the key."""
    client_assertion_audience: AssertionAudience = "issuer"
    """`issuer` or, with warning W012, `token_endpoint`."""
    par: PARMode = "auto"
    """Pushed authorization requests: `auto` if the provider supports them, `require`, or, with warning W013, `never`,
    which fails with a provider that requires them (`par_unsupported`)."""
    claims_request: ClaimsRequestMode = "scopes"
    """`scopes`, or `parameter`: the `claims` parameter; `parameter_null` for providers that accept only null there."""
    resource_scopes: Annotated[tuple[ScopeDeclaration, ...], _parse_scopes] = ()
    """Further scopes, name → `{"purpose": …, "basis": …}`, including `offline_access`."""
    id_token_signed_response_alg: Annotated[tuple[str, ...], checked(_parse_algs, bool, "is empty")] = SIGNING_ALGS
    """Allowed algorithms; `none` and HS* are never allowed."""
    userinfo_signed_response_alg: Annotated[tuple[str, ...], _parse_algs] = ()
    """If set, UserInfo must be signed with one of these; otherwise it may be signed. Default: not set."""
    subject_type: SubjectType = "pairwise"
    """`pairwise` or, with warning W001, `public`."""
    acr_values: tuple[str, ...] = ()
    """Sent with the authorization request, and verified on return. Default: not sent."""
    max_age: Annotated[int, _parse_max_age] | None = None
    """Seconds or timedelta: sent with the authorization request, and verified on return. Default: not sent."""
    allow_auth_time_zero: bool = False
    """With warning W014: an `auth_time` of 0 means "unknown", and passes `max_age`."""
    reauthentication: ReauthenticationMode = "verify"
    """`verify`: [after a timeout](../how-to/time-out-in-the-browser.md#sign-in-after-a-timeout), the next sign-in of
    the browser requests `prompt=login` and `max_age`, and verifies `auth_time`; or, with warning W034, `request`:
    without `max_age` and verification, or `never`."""
    authorization_parameters: Annotated[tuple[tuple[str, str], ...], _parse_authorization_parameters] = ()
    """Further parameters of each authorization request, name → string: `prompt`, `ui_locales`, `login_hint` (the same
    for all users, such as a domain: never about a person), or one that the provider defines. Parameters that the
    protocol sets, such as `scope` and `max_age`, are refused."""
    leeway: Annotated[timedelta, _parse_leeway] = timedelta(seconds=30)
    """Accepted clock difference: timedelta or seconds, at most 120."""
    ca_bundle: str = ""
    """File of the CA that signed the provider's certificate. Verification can't be disabled. Default: system."""
    proxy: Annotated[str, _parse_proxy] = field(default="", repr=False)  # it may contain a password
    """URL of a proxy; no environment variable is read."""
    max_concurrent_calls: Annotated[int, _parse_call_count] = 2
    """Calls to the provider that run at once in a process, [at most half of its
    threads](../how-to/deploy.md#a-provider-that-hangs). Others wait for their turn while calls finish, and are refused
    while all of them hang."""
    allow_loopback_http: bool = False
    """Accept http on loopback addresses, for development."""
    max_access_token_lifetime: timedelta = timedelta(hours=24)
    """timedelta or seconds; more than an hour, or an unknown lifetime, raises an alert."""
    revocation: RevocationRequirement = "required"
    """`required`, or `best_effort` for a provider without a revocation endpoint."""
    tokens: TokenHandling = "keep"
    """`keep`, or `discard`: tokens are revoked at the end of the sign-in and never stored."""
    end_session_method: EndSessionMethod = "get"
    """How the browser is sent to the provider's end_session_endpoint: `get`, or `post`, a form, which keeps the
    `id_token_hint` out of URLs."""
    id_token_hint: IDTokenHint = "minimal"
    """When the ID Token is stored, and sent at the logout: `minimal`, only if it has no claims about the person;
    `always`, with warning W040; `never`, for a provider that needs no hint.
    [What each one means](../how-to/logout.md#the-hint)."""
    end_session_parameters: Annotated[tuple[tuple[str, str], ...], _parse_end_session_parameters] = ()
    """Further parameters of each logout request, name → string, such as `logout_uri` at Amazon Cognito. Parameters that
    the protocol sets, such as `post_logout_redirect_uri`, are refused."""
    allow_logout_token_without_exp: bool = False
    """With warning W022: a logout token without `exp` is valid for two minutes after its `iat`."""
    require_logout_typ: bool = False
    """Refuse logout tokens whose `typ` is `JWT` or absent; another `typ` than `logout+jwt` is always refused."""
    trusted_audiences: tuple[str, ...] = ()
    """Further audiences that an ID Token may contain."""
    provisioning: ProvisioningMode = "create"
    """At a first sign-in: `create` an account, `existing`: an administrator must
    [link the subject](../how-to/link-subjects.md) first, or `invitation`: the user enters an
    [activation code](../how-to/activation-codes.md)."""

    def get_assertion_alg(self, key: ClientKey) -> str:
        """Return the algorithm of client assertions for a key: the declared one if it fits the key type."""
        fitting = ALGS_BY_KTY[key.kty]
        return self.token_endpoint_auth_signing_alg if self.token_endpoint_auth_signing_alg in fitting else fitting[0]


def parse_provider(name: str, raw: Mapping[str, Any]) -> ProviderDeclaration:
    """Return the provider that raw declares. Raises: DeclarationInvalid with all mistakes, and no value."""
    path = f"PROVIDERS[{name!r}]"
    # The name is part of redirect URIs: providers compare these byte for byte, and browsers normalise them.
    parse_name(path, name)
    return parse_declaration(ProviderDeclaration, path, raw, name=name, list_faults=_list_provider_faults)


def is_loopback_http(url: str) -> bool:
    """Say whether url is http on a loopback address: 127.0.0.0/8, [::1] or localhost."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and bool(parts.hostname) and is_loopback(parts.hostname or "")
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Say whether host is localhost, in 127.0.0.0/8, or ::1."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _list_provider_faults(provider: ProviderDeclaration) -> Iterator[str]:
    if provider.token_endpoint_auth_method != "private_key_jwt":
        if not provider.client_secret:
            yield "['client_secret'] is empty."
        if provider.client_keys or provider.token_endpoint_auth_signing_alg:
            yield "['client_keys'] and ['token_endpoint_auth_signing_alg'] require private_key_jwt."
    else:
        if provider.client_secret:
            yield "['client_secret'] is not used with private_key_jwt: leave it out."
        if not provider.client_keys:
            yield "['client_keys'] is empty."
        elif provider.token_endpoint_auth_signing_alg not in ("", *(algs := ALGS_BY_KTY[provider.client_keys[0].kty])):
            yield f"['token_endpoint_auth_signing_alg']: the first key signs {', '.join(algs)}."
    if provider.profile == "heart":
        yield from _list_heart_faults(provider)


def _list_heart_faults(provider: ProviderDeclaration) -> Iterator[str]:
    """Yield the options that the HEART profiles do not permit. Token lifetimes are checked with the tokens.

    Spec: HEART's profile of OAuth 2.0 (Requests to the Token Endpoint; Token Revocation and Introspection).
    """
    conditions = {
        "token_endpoint_auth_method": provider.token_endpoint_auth_method == "private_key_jwt",
        "revocation": provider.revocation == "required",
        "allow_auth_time_zero": not provider.allow_auth_time_zero,
    }
    if violated := [name for name, holds in conditions.items() if not holds]:
        yield f"['profile'] heart does not permit this value of {', '.join(violated)}."
