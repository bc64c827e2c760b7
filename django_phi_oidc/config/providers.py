"""The OpenID Providers of a project, parsed into frozen values. No Django."""

import re
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from ..errors import DeclarationInvalid
from .assurance_levels import parse_acr_values, parse_vectors
from .client_keys import ClientKey, KeyUse, parse_client_keys
from .encryption_algorithms import (
    CONTENT_ENCRYPTION_ALGS,
    DEFAULT_CONTENT_ENCRYPTION_ALGS,
    KTY_BY_KEY_MANAGEMENT_ALG,
    ResponseEncryption,
)
from .loopback import is_loopback_http
from .metadata_overrides import MetadataOverrides, parse_metadata_overrides
from .option_grades import LATER, RARE, START_HERE
from .option_parsers import (
    checked,
    fail,
    get_parsers,
    is_secure_url,
    is_url,
    join_path,
    parse_choices,
    parse_declaration,
    parse_duration,
    parse_each,
    parse_mapping,
    parse_name,
    parse_nonempty,
    parse_raw,
    parse_string,
    parse_strings,
)
from .request_parameters import (
    REQUEST_OBJECT_CLAIMS,
    parse_authorization_parameters,
    parse_end_session_parameters,
)
from .resource_scopes import ScopeDeclaration, parse_scopes
from .sections import ProviderOption, find_app_of_provider_option, get_provider_options
from .signature_algorithms import DEFAULT_SIGNING_ALGS, SIGNATURE_ALGORITHMS, find_key_type

FAPI2_ALGS = frozenset({"PS256", "ES256", "EdDSA", "Ed25519"})
"""Spec: FAPI 2.0 Security Profile 5.4.1."""
MAX_ISSUER_LENGTH = 255
MAX_LEEWAY = timedelta(seconds=120)
AMR_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
"""The name of an authentication method. RFC 8176 registers short ones; providers add longer
ones.
"""
_ABSOLUTE_URI_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!$-;=?-\[\]_a-z~]{1,512}")
"""RFC 3986 4.3."""

ClientAuthMethod = Literal[
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
]
MTLS_METHODS = ("tls_client_auth", "self_signed_tls_client_auth")
"""Methods by which the TLS certificate authenticates the client. Spec: RFC 8705 2."""
ClientKeyHeader = Literal["kid", "x5t#S256", "x5c"]
AssertionAudience = Literal["issuer", "token_endpoint", "endpoint"]
SubjectType = Literal["pairwise", "public"]
RevocationRequirement = Literal["required", "best_effort"]
TokenHandling = Literal["keep", "discard"]
EndSessionMethod = Literal["get", "post"]
IDTokenHint = Literal["minimal", "always", "never"]
ProvisioningMode = Literal["create", "existing", "invitation"]
PARMode = Literal["auto", "require", "never"]
DPoPMode = Literal["never", "auto", "require"]
ClaimsRequestMode = Literal["scopes", "parameter", "parameter_null"]
ReauthenticationMode = Literal["verify", "request", "never"]
SecurityProfile = Literal["baseline", "heart", "fapi2"]


OptionT = TypeVar("OptionT", bound=ProviderOption)


class Label(ABC):  # noqa: B024 -- a register of types
    """A string, or a lazy translation, whose type the framework's side registers."""


Label.register(str)
_parse_issuer = checked(
    parse_string,
    # http is accepted here for a provider on a loopback address; check E005 refuses it elsewhere.
    lambda url: is_url(url, forbidden=" ?#@") and len(url) <= MAX_ISSUER_LENGTH,
    "must be an https URL without query or fragment (Discovery "
    f"3), {MAX_ISSUER_LENGTH} characters at most",
)
_parse_proxy = checked(
    parse_string,
    lambda url: not url or url.startswith(("http://", "https://")),
    "must be an http or https URL",
)
_parse_leeway = partial(parse_duration, minimum=timedelta(0), maximum=MAX_LEEWAY)
_parse_encryption_algs = partial(parse_choices, choices=tuple(KTY_BY_KEY_MANAGEMENT_ALG))
_parse_encs = checked(partial(parse_choices, choices=CONTENT_ENCRYPTION_ALGS), bool, "is empty")
_parse_label = checked(parse_raw, lambda label: isinstance(label, Label), "must be a string")
_parse_algs = checked(
    parse_strings,
    set(SIGNATURE_ALGORITHMS).issuperset,
    f"may contain only {', '.join(SIGNATURE_ALGORITHMS)}",
)
_parse_metadata_url = checked(
    parse_string,
    lambda url: not url or is_secure_url(url),
    "must be an https URL without fragment",
)
_parse_metadata_issuer = checked(
    parse_string,
    lambda url: not url or is_url(url, forbidden=" ?#@"),
    "must be a URL without query or fragment",
)
_parse_resource = checked(
    parse_string,
    lambda uri: not uri or _ABSOLUTE_URI_PATTERN.fullmatch(uri),
    "must be an absolute URI without fragment (RFC 8707 2)",
)
_parse_trust_mark = checked(
    parse_string,
    lambda url: not url or (is_url(url, forbidden=" #@") and url.startswith("https:")),
    "must be an https URL (RFC 8485 5)",
)
_parse_methods = checked(
    parse_strings,
    lambda names: all(map(AMR_PATTERN.fullmatch, names)),
    "must be a list of authentication methods such as mfa or hwk",
)


def _parse_max_age(path: str, value: Any) -> int:
    if isinstance(value, timedelta) and not value.microseconds:
        value = value // timedelta(seconds=1)
    if type(value) is int and value >= 0:
        return value
    return fail(path, "must be a whole number of seconds, or None")


def _parse_call_count(path: str, value: Any) -> int:
    if type(value) is int and value >= 1:
        return value
    return fail(path, "must be a whole number, at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDeclaration:
    """An OpenID Provider. Option names are those of OIDC Core and RFC 7591 where these have one."""

    name: str
    app_options: Annotated[tuple[tuple[str, ProviderOption], ...], parse_raw] = ()
    """The options that apps add, by name; see `find_option`."""
    issuer: Annotated[str, _parse_issuer] = field(metadata=START_HERE)
    """As in the provider's metadata and ID Tokens, byte for byte."""
    metadata_url: Annotated[str, _parse_metadata_url] = field(default="", metadata=RARE)
    """URL of the metadata, if elsewhere: OpenID Connect Discovery, RFC 8414, or SMART's
    `.well-known/smart-configuration`. Default: `.well-known/openid-configuration` below the issuer.
    """
    metadata_issuer: Annotated[str, _parse_metadata_issuer] = field(default="", metadata=RARE)
    """With warning W120 and `metadata_url`: the issuer that this document and `iss` of
    authorization responses (RFC 9207) name, if ID Tokens name `issuer`. Default: `issuer`.
    """
    metadata_overrides: Annotated[MetadataOverrides, parse_metadata_overrides] = field(
        default=(), metadata=RARE
    )
    """With warning W045: [members of the metadata](#metadata_overrides) that are missing or wrong
    there, name → value.
    """
    client_id: Annotated[str, parse_nonempty] = field(metadata=START_HERE)
    """The client identifier of the portal at the provider."""
    client_secret: str = field(default="", repr=False, metadata=START_HERE)
    """With `client_secret_basic` and `client_secret_post` only. Default: required with them."""
    # a lazy translation has no fixed value
    label: Annotated[str, _parse_label] = field(default="", compare=False, metadata=LATER)
    """Text for the choice among several providers; may be [lazily
    translated](../how-to/translate.md). Default: the name.
    """
    profile: SecurityProfile = field(default="baseline", metadata=RARE)
    """`baseline`, [`heart`](#the-profile-heart) or [`fapi2`](#the-profile-fapi2): which security
    profile is enforced.
    """
    token_endpoint_auth_method: ClientAuthMethod = field(
        default="client_secret_basic", metadata=LATER
    )
    """`client_secret_basic`, `client_secret_post`, `private_key_jwt`, or mutual TLS:
    `tls_client_auth`, `self_signed_tls_client_auth`.
    """
    client_certificate: Path | None = field(default=None, metadata=RARE)
    """Absolute path of a PEM file: the [client certificate](../how-to/client-certificates.md) and
    its intermediate CAs. A changed file is read again. Default: none; required for mutual TLS.
    """
    client_certificate_key: Path | None = field(default=None, metadata=RARE)
    """Absolute path of a PEM file: its unencrypted private key. Default: the key in the same file.
    """
    client_keys: Annotated[tuple[ClientKey, ...], parse_client_keys] = field(
        default=(), metadata=LATER
    )
    """The portal's private keys, [an entry or a list](#client_keys), published in `oidc/jwks.json`.
    The first with `use` `sig` signs. Default: required with `private_key_jwt`.
    """
    token_endpoint_auth_signing_alg: str = field(default="", metadata=RARE)
    """Algorithm of client assertions, for this key; RS256, RS384 and RS512 with warning W011.
    Default: PS256, ES256, ES384, ES512 or EdDSA, as the key.
    """
    client_key_header: ClientKeyHeader = field(default="kid", metadata=RARE)
    """How client assertions and signed requests name the key: `kid`; `x5t#S256`, the thumbprint of
    [its certificate](../how-to/client-certificates.md#of-a-key-that-signs); `x5c`, the
    certificates.
    """
    udap: bool = field(default=False, metadata=RARE)
    """Client assertions are those of [UDAP](../how-to/client-certificates.md#udap), with `udap=1`.
    Requires `client_key_header` `x5c`.
    """
    client_assertion_audience: AssertionAudience = field(default="issuer", metadata=RARE)
    """`issuer` or, with warning W012, `token_endpoint`, or `endpoint`: the URL that the assertion
    is sent to.
    """
    request_object_signing_alg: str = field(default="", metadata=RARE)
    """Algorithm by which the first of `client_keys` [signs authorization
    requests](../how-to/client-keys.md#signed-requests); RS256 with warning W108. Default: not
    signed.
    """
    par: PARMode = field(default="auto", metadata=RARE)
    """Pushed authorization requests: `auto` if the provider supports them, `require`, or, with
    warning W013, `never`.
    """
    dpop: DPoPMode = field(default="never", metadata=RARE)
    """[Tokens bound to a key of the session](../how-to/sender-constrained-tokens.md) (RFC 9449):
    `never`; `auto`, if the provider supports it, which also accepts unbound tokens; `require`.
    """
    claims_request: ClaimsRequestMode = field(default="scopes", metadata=RARE)
    """`scopes`; `parameter`: the `claims` parameter; `parameter_null` for providers that accept
    only null there.
    """
    resource_scopes: Annotated[tuple[ScopeDeclaration, ...], parse_scopes] = field(
        default=(), metadata=LATER
    )
    """Further scopes, such as `offline_access`: name → `{"purpose": …, "basis": …}`."""
    id_token_signed_response_alg: Annotated[
        tuple[str, ...], checked(_parse_algs, bool, "is empty")
    ] = field(default=DEFAULT_SIGNING_ALGS, metadata=RARE)
    """Allowed algorithms; also PS384, PS512, ES384, ES512, RS384, RS512, but never `none` and HS*.
    """
    userinfo_signed_response_alg: Annotated[tuple[str, ...], _parse_algs] = field(
        default=(), metadata=RARE
    )
    """If set, UserInfo must be signed with one of these; otherwise it may be signed. Default: not
    set.
    """
    id_token_encrypted_response_alg: Annotated[tuple[str, ...], _parse_encryption_algs] = field(
        default=(), metadata=RARE
    )
    """If set, ID Tokens and logout tokens must be [encrypted](../how-to/encrypted-tokens.md),
    otherwise not: RSA-OAEP-256, ECDH-ES, ECDH-ES+A128KW, ECDH-ES+A256KW. Requires a key with `use`
    `enc`. Default: not set.
    """
    id_token_encrypted_response_enc: Annotated[tuple[str, ...], _parse_encs] = field(
        default=DEFAULT_CONTENT_ENCRYPTION_ALGS, metadata=RARE
    )
    """Allowed encryption of their content; also A256CBC-HS512."""
    userinfo_encrypted_response_alg: Annotated[tuple[str, ...], _parse_encryption_algs] = field(
        default=(), metadata=RARE
    )
    """The same for UserInfo; requires `userinfo_signed_response_alg`. Default: not set."""
    userinfo_encrypted_response_enc: Annotated[tuple[str, ...], _parse_encs] = field(
        default=DEFAULT_CONTENT_ENCRYPTION_ALGS, metadata=RARE
    )
    """Allowed encryption of the content of UserInfo; also A256CBC-HS512."""
    subject_type: SubjectType = field(default="pairwise", metadata=START_HERE)
    """`pairwise` or, with warning W001, `public`."""
    acr_values: tuple[str, ...] = field(default=(), metadata=LATER)
    """Sent with the authorization request, and verified on return. Default: not sent."""
    acr_accepted: Annotated[tuple[str, ...], parse_acr_values] = field(default=(), metadata=LATER)
    """The `acr` values that are accepted on return, if the provider answers with others than
    requested, or without a request. Default: `acr_values`.
    """
    vtr: Annotated[tuple[str, ...], parse_vectors] = field(default=(), metadata=RARE)
    """[Vectors of trust](../how-to/require-assurance.md#vectors-of-trust) such as `P9.Cp.Cd`, the
    most wanted first, for the request. `vot` must have all components of one. Requires `vtm`.
    Default: not sent.
    """
    vtm: Annotated[str, _parse_trust_mark] = field(default="", metadata=RARE)
    """URL of the trust mark that defines the vectors: `vtm` of ID Tokens must equal it."""
    amr_required: Annotated[tuple[str, ...], _parse_methods] = field(default=(), metadata=LATER)
    """Authentication methods of which `amr` must name **at least one**, such as `["hwk", "fido"]`.
    Many providers send `mfa` for several factors. Default: not checked.
    """
    provider_requires_mfa: bool = field(default=False, metadata=LATER)
    """A rule of the provider requires several factors of each user. Nothing is verified, but W055
    and W057 are not reported.
    """
    max_age: Annotated[int, _parse_max_age] | None = field(default=None, metadata=LATER)
    """Sent with the authorization request, and verified on return. Default: not sent."""
    allow_auth_time_zero: bool = field(default=False, metadata=RARE)
    """With warning W014: an `auth_time` of 0 means "unknown", and passes `max_age`."""
    reauthentication: ReauthenticationMode = field(default="verify", metadata=LATER)
    """[After a timeout](../how-to/session-timeout-warning.md#sign-in-after-a-timeout), `verify`:
    request `prompt=login` and `max_age`, and verify `auth_time`; with warning W034, `request`: only
    `prompt=login`, or `never`: neither, nor for a [step-up](../how-to/require-assurance.md).
    """
    authorization_parameters: Annotated[
        tuple[tuple[str, str], ...], parse_authorization_parameters
    ] = field(default=(), metadata=LATER)
    """Further parameters of each authorization request, name → string, such as `prompt` or
    `login_hint` (never about a person), but not those of the protocol.
    """
    resource: Annotated[str, _parse_resource] = field(default="", metadata=RARE)
    """URI of the API that access tokens are for (RFC 8707). Many providers refuse such a token at
    UserInfo. Default: not sent.
    """
    leeway: Annotated[timedelta, _parse_leeway] = field(
        default=timedelta(seconds=30), metadata=RARE
    )
    """Accepted clock difference, at most 120 seconds."""
    ca_bundle: str = field(default="", metadata=LATER)
    """File of the CA that signed the provider's certificate. Verification can't be disabled.
    Default: system.
    """
    # it may contain a password
    proxy: Annotated[str, _parse_proxy] = field(default="", repr=False, metadata=LATER)
    """URL of a proxy; no environment variable is read."""
    max_concurrent_calls: Annotated[int, _parse_call_count] = field(default=2, metadata=LATER)
    """Calls to the provider that run at once in a process, [at most half of its
    threads](../how-to/deploy-servers.md#a-provider-that-hangs). Others wait only at a quick
    provider.
    """
    allow_loopback_http: bool = field(default=False, metadata=START_HERE)
    """Accept http on loopback addresses, for development."""
    max_access_token_lifetime: timedelta = field(default=timedelta(hours=24), metadata=LATER)
    """The longest accepted lifetime. More than an hour, or an unknown one, raises an alert."""
    revocation: RevocationRequirement = field(default="required", metadata=LATER)
    """`required`, or `best_effort` for a provider without a revocation endpoint."""
    tokens: TokenHandling = field(default="keep", metadata=LATER)
    """`keep`, or `discard`: tokens are revoked at the end of the sign-in and never stored."""
    end_session_method: EndSessionMethod = field(default="get", metadata=RARE)
    """How the browser is sent to the end_session_endpoint: `get`, or `post`, a form, without the
    `id_token_hint` in a URL.
    """
    id_token_hint: IDTokenHint = field(default="minimal", metadata=LATER)
    """When the ID Token is stored for the logout: `minimal`, only if it has no claims about the
    person; `always`, with warning W040; `never`. [Which one to
    choose](../how-to/logout.md#the-hint).
    """
    end_session_parameters: Annotated[tuple[tuple[str, str], ...], parse_end_session_parameters] = (
        field(default=(), metadata=RARE)
    )
    """Further parameters of each logout request, name → string, such as `logout_uri` at Amazon
    Cognito.
    """
    allow_logout_token_without_exp: bool = field(default=False, metadata=RARE)
    """With warning W022: a logout token without `exp` is valid for two minutes after its `iat`."""
    require_logout_typ: bool = field(default=False, metadata=RARE)
    """Refuse logout tokens whose `typ` is `JWT` or absent."""
    trusted_audiences: tuple[str, ...] = field(default=(), metadata=RARE)
    """Further audiences that an ID Token may contain."""
    provisioning: ProvisioningMode = field(default="create", metadata=LATER)
    """At a first sign-in: `create` an account, `existing`: an administrator must [link the
    subject](../how-to/link-subjects.md) first, or `invitation`: the user enters an [activation
    code](../how-to/activation-codes.md).
    """

    def find_option(self, declaration_class: type[OptionT]) -> OptionT | None:
        """Return the option that an app adds with that class; None: it is not declared."""
        for _, option in self.app_options:
            if isinstance(option, declaration_class):
                return option
        return None

    @property
    def accepted_acr_values(self) -> tuple[str, ...]:
        """The values that `acr` of an ID Token may have; empty: any, or none."""
        return self.acr_accepted or self.acr_values

    @property
    def requires_assurance(self) -> bool:
        """Whether each sign-in must have a declared level."""
        return bool(self.accepted_acr_values or self.vtr or self.amr_required)

    def list_keys(self, use: KeyUse) -> tuple[ClientKey, ...]:
        """Return the client keys of that use. The first one of `sig` signs."""
        keys = []
        for key in self.client_keys:
            if key.use == use:
                keys.append(key)
        return tuple(keys)

    @property
    def id_token_encryption(self) -> ResponseEncryption:
        """How ID Tokens and logout tokens must be encrypted."""
        return ResponseEncryption(
            self.id_token_encrypted_response_alg,
            self.id_token_encrypted_response_enc,
            self.list_keys("enc"),
        )

    @property
    def userinfo_encryption(self) -> ResponseEncryption:
        """How UserInfo responses must be encrypted."""
        return ResponseEncryption(
            self.userinfo_encrypted_response_alg,
            self.userinfo_encrypted_response_enc,
            self.list_keys("enc"),
        )

    def get_assertion_alg(self, key: ClientKey) -> str:
        """Return the algorithm of client assertions for a key: the declared one if it fits.
        Requires: use sig.
        """
        fitting = key.list_algs()
        if self.token_endpoint_auth_signing_alg in fitting:
            return self.token_endpoint_auth_signing_alg
        return fitting[0]

    def list_signing_algs(self, key: ClientKey) -> set[str]:
        """Return the algorithms by which the key signs, or would sign if it were the first one.
        Requires: use sig.
        """
        algs = {self.request_object_signing_alg} & set(key.list_algs())
        if self.token_endpoint_auth_method == "private_key_jwt":
            return algs | {self.get_assertion_alg(key)}
        return algs


def parse_provider(name: str, raw: Mapping[str, Any]) -> ProviderDeclaration:
    """Return the provider that raw declares. Raises: DeclarationInvalid with all mistakes, and no
    value.
    """
    path = f"PROVIDERS[{name!r}]"
    # The name is part of redirect URIs: providers compare these byte for byte, and browsers
    # normalise them.
    parse_name(path, name)
    classes = get_provider_options()
    mistakes = []
    app_options: dict[str, ProviderOption] = {}
    try:
        app_options = parse_each(
            lambda option, value: classes[option].parse(join_path(path, option), value),
            [
                (option, value)
                for option, value in parse_mapping(path, raw).items()
                if option in classes and value is not None
            ],
        )
    except DeclarationInvalid as error:
        mistakes.append(str(error))
    try:
        provider = parse_declaration(
            ProviderDeclaration,
            path,
            raw,
            known={*get_parsers(ProviderDeclaration), *classes} - {"name", "app_options"},
            find_app=find_app_of_provider_option,
            list_faults=_list_provider_faults,
            name=name,
            app_options=tuple(app_options.items()),
        )
    except DeclarationInvalid as error:
        mistakes.insert(0, str(error))
    if mistakes:
        raise DeclarationInvalid("\n".join(mistakes))
    return provider


def _list_provider_faults(provider: ProviderDeclaration) -> Iterator[str]:
    yield from _list_url_faults(provider)
    yield from _list_authentication_faults(provider)
    yield from _list_signing_faults(provider)
    yield from _list_encryption_faults(provider)
    if provider.metadata_issuer and not provider.metadata_url:
        yield (
            "['metadata_issuer'] requires metadata_url: the document "
            "below the issuer must name the issuer."
        )
    if provider.vtr and not provider.vtm:
        yield (
            "['vtm'] is missing: only the trust mark says what "
            "the vectors of vtr mean (RFC 8485 5)."
        )
    if provider.profile == "heart":
        yield from _list_heart_faults(provider)
    elif provider.profile == "fapi2":
        yield from _list_fapi2_faults(provider)
    for _, option in provider.app_options:
        yield from option.list_faults(provider)


def _list_url_faults(provider: ProviderDeclaration) -> Iterator[str]:
    """Yield URLs to which every request would be refused. Check E005 is about the issuer."""
    urls = {"['metadata_url']": provider.metadata_url}
    for member, value in provider.metadata_overrides:
        if isinstance(value, str):
            urls[f"['metadata_overrides'][{member!r}]"] = value
    for path, url in urls.items():
        if is_loopback_http(url) and not provider.allow_loopback_http:
            yield f"{path} must be https. allow_loopback_http is for development on loopback."


def _list_authentication_faults(provider: ProviderDeclaration) -> Iterator[str]:
    method = provider.token_endpoint_auth_method
    if method in ("client_secret_basic", "client_secret_post"):
        if not provider.client_secret:
            yield "['client_secret'] is empty."
    elif provider.client_secret:
        yield f"['client_secret'] is not used with {method}: leave it out."
    if provider.client_certificate is None:
        if method in MTLS_METHODS:
            yield f"['client_certificate'] is required with {method}."
        if provider.client_certificate_key is not None:
            yield "['client_certificate_key'] requires client_certificate."


def _list_fapi2_faults(provider: ProviderDeclaration) -> Iterator[str]:
    """Yield the options that the FAPI 2.0 Security Profile does not permit.

    The metadata is checked when it is processed, and the tokens at the sign-in and at the APIs.
    Spec: FAPI 2.0 Security Profile 5.3.3.1, 5.3.3.2, 5.4.1.
    """
    algs = [*provider.id_token_signed_response_alg, *provider.userinfo_signed_response_alg]
    client_algs = set()
    for key in provider.list_keys("sig")[:1]:
        for alg in provider.list_signing_algs(key):
            client_algs.add(alg)
    conditions = {
        "token_endpoint_auth_method": provider.token_endpoint_auth_method
        in ("private_key_jwt", *MTLS_METHODS),
        "token_endpoint_auth_signing_alg or request_object_signing_alg": client_algs <= FAPI2_ALGS,
        "client_assertion_audience": provider.client_assertion_audience == "issuer",
        "metadata_overrides or metadata_issuer": not (
            provider.metadata_overrides or provider.metadata_issuer
        ),
        "par": provider.par == "require",
        "dpop or client_certificate": provider.dpop == "require"
        or provider.client_certificate is not None,
        "id_token_signed_response_alg or userinfo_signed_response_alg": set(algs) <= FAPI2_ALGS,
    }
    if violated := [name for name, holds in conditions.items() if not holds]:
        yield f"['profile'] fapi2 does not permit this value of {', '.join(violated)}."


def _list_signing_faults(provider: ProviderDeclaration) -> Iterator[str]:
    """Yield mistakes in the use of the client key that signs assertions and requests."""
    signs_assertions = provider.token_endpoint_auth_method == "private_key_jwt"
    signs_requests = bool(provider.request_object_signing_alg)
    keys = provider.list_keys("sig")
    if provider.token_endpoint_auth_signing_alg and not signs_assertions:
        yield "['token_endpoint_auth_signing_alg'] requires private_key_jwt."
    if not (signs_assertions or signs_requests):
        # The next certificate is published before it is presented.
        is_published_only = provider.token_endpoint_auth_method == "self_signed_tls_client_auth"
        if (keys and not is_published_only) or provider.client_key_header != "kid" or provider.udap:
            yield "['client_keys'] to sign require private_key_jwt or request_object_signing_alg."
    elif not keys:
        yield "['client_keys'] has no key to sign."
    else:
        for option in ("token_endpoint_auth_signing_alg", "request_object_signing_alg"):
            if getattr(provider, option) not in ("", *(algs := keys[0].list_algs())):
                yield f"[{option!r}]: the first key signs {', '.join(algs)}."
        if provider.udap and not (signs_assertions and provider.client_key_header == "x5c"):
            yield "['udap'] requires private_key_jwt, and client_key_header x5c."
        if signs_requests and (
            names := REQUEST_OBJECT_CLAIMS.intersection(dict(provider.authorization_parameters))
        ):
            yield (
                f"['authorization_parameters'] {', '.join(sorted(names))}: "
                "a signed request has this claim itself."
            )
        if provider.client_key_header != "kid" and not keys[0].certificate:
            yield (
                f"['client_key_header'] {provider.client_key_header} "
                "requires a certificate of the first key."
            )


def _list_encryption_faults(provider: ProviderDeclaration) -> Iterator[str]:
    kinds = {
        key_type.kty
        for key in provider.list_keys("enc")
        if (key_type := find_key_type(key.private_key))
    }
    for name in ("id_token_encrypted_response_alg", "userinfo_encrypted_response_alg"):
        for alg in getattr(provider, name):
            if KTY_BY_KEY_MANAGEMENT_ALG[alg] not in kinds:
                yield (
                    f"['{name}'] {alg} requires a client key of type "
                    f"{KTY_BY_KEY_MANAGEMENT_ALG[alg]} with use enc."
                )
    if provider.userinfo_encrypted_response_alg and not provider.userinfo_signed_response_alg:
        yield "['userinfo_encrypted_response_alg'] requires userinfo_signed_response_alg."


def _list_heart_faults(provider: ProviderDeclaration) -> Iterator[str]:
    """Yield the options that the HEART profiles do not permit. Token lifetimes are checked with the
    tokens.

    Spec: HEART's profile of OAuth 2.0 (Requests to the Token Endpoint; Token Revocation and
    Introspection).
    """
    conditions = {
        "token_endpoint_auth_method": provider.token_endpoint_auth_method == "private_key_jwt",
        "revocation": provider.revocation == "required",
        "allow_auth_time_zero": not provider.allow_auth_time_zero,
    }
    if violated := [name for name, holds in conditions.items() if not holds]:
        yield f"['profile'] heart does not permit this value of {', '.join(violated)}."
