"""What is right and wrong with an OP, as functions of what it answered. No Django.

Each check says ok, warning (it works, and should be mended, or can't be told), or failure (sign-ins are refused, or
what must be safe is not), with the code of the rule where there is one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from ..claims.minimization import PROTOCOL_CLAIMS, build_claims_request
from ..config.claims import ClaimDeclaration
from ..config.providers import ProviderDeclaration
from ..errors import (
    AccessTokenLifetime,
    AcrInsufficient,
    AlgUnsupported,
    IatInvalid,
    IntrospectionFailed,
    IssMissing,
    IssuerMismatch,
    KeyNotFound,
    MetadataInvalid,
    PairwiseUnsupported,
    PARUnsupported,
    RevocationUnsupported,
    SignInRefused,
    TransportNotHTTPS,
)
from ..oidc.metadata import OPTIONAL_ENDPOINTS, REQUIRED_ENDPOINTS, process_jwks_response, validate_https_url
from ..oidc.revocation import process_revocation_response
from ..oidc.transport import TransportResponse, parse_json_body

FindingLevel = Literal["ok", "warning", "failure"]
CERTIFICATE_EXPIRY_WARNING = timedelta(days=30)
_LIST_MEMBERS = ("prompt_values_supported", "subject_types_supported", "id_token_signing_alg_values_supported")
_BOOLEAN_MEMBERS = ("require_pushed_authorization_requests", "authorization_response_iss_parameter_supported")
_MAX_TEXT_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFinding:
    """One line of the table."""

    check: str
    level: FindingLevel
    text: str
    code: str = ""
    """Of the rule, or of ours; empty when it is ok."""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSPeer:
    """Who answered at an address, by TLS."""

    host: str
    tls_version: str = ""
    certificate_expires_at: datetime | None = None
    """The certificate's end; None: the address is http, or lies behind a proxy."""


def _ok(check: str, text: str) -> ProviderFinding:
    return ProviderFinding(check=check, level="ok", text=sanitize_text(text))


def _warning(check: str, code: str, text: str, remedy: str) -> ProviderFinding:
    return ProviderFinding(check=check, level="warning", code=code, text=sanitize_text(text), remedy=remedy)


def _failure(check: str, code: str, text: str, remedy: str) -> ProviderFinding:
    return ProviderFinding(check=check, level="failure", code=code, text=sanitize_text(text), remedy=remedy)


def sanitize_text(text: str) -> str:
    """Return text, which may be an OP's word, as any terminal may have it: no letter that looks like another."""
    return (text if text.isascii() and text.isprintable() else ascii(text))[:_MAX_TEXT_LENGTH]


def check_peer(peer: TLSPeer, *, now: datetime) -> ProviderFinding:
    """TLS, and how long the certificate lasts. That it is the OP's was verified when it was shown."""
    if not peer.tls_version:
        return _warning("tls", TransportNotHTTPS.code, f"{peer.host}: http, in clear", "Use it on loopback alone.")
    if peer.certificate_expires_at is None:
        return _ok("tls", f"{peer.host}: verified; the certificate's end is not seen through the proxy")
    left = (peer.certificate_expires_at - now).days
    told = f"{peer.host}: {peer.tls_version}, certificate until {peer.certificate_expires_at:%Y-%m-%d} ({left} days)"
    if peer.certificate_expires_at - now < CERTIFICATE_EXPIRY_WARNING:
        return _warning("tls", "certificate_expires", told, "Let the provider renew it before that day.")
    return _ok("tls", told)


def diagnose_request_error(check: str, error: SignInRefused) -> ProviderFinding:
    """What stood in the way of an answer."""
    return _failure(check, error.code, str(error), _REMEDIES.get(error.code, "Ask the provider."))


_REMEDIES = {
    "transport_tls": "Let the provider mend its certificate, or name the file of its CA in ca_bundle.",
    "transport_unreachable": "Look at the issuer's name, DNS, the firewall, and proxy.",
    "transport_timeout": "Look at the network on the way, and at the provider's load.",
    "transport_redirect": "Declare the issuer where the provider really is.",
    "transport_not_https": "Declare an https issuer. allow_loopback_http is for development on loopback.",
    "metadata_invalid": "Is the issuer the right one? Its /.well-known/openid-configuration must be a JSON object.",
}


def find_metadata_members(response: TransportResponse) -> Mapping[str, Any] | None:
    """Return what the OP says of itself; None where the answer is no metadata. Spec: Discovery 4.2."""
    return parse_json_body(response) if response.status == 200 else None


def check_discovery(response: TransportResponse) -> ProviderFinding:
    """Spec: Discovery 4.2."""
    if find_metadata_members(response) is None:
        told = f"no metadata: status {response.status}, {len(response.body)} bytes"
        return _failure("discovery", MetadataInvalid.code, told, _REMEDIES[MetadataInvalid.code])
    return _ok("discovery", f"{len(response.body)} bytes of metadata")


def check_issuer(members: Mapping[str, Any], *, issuer: str) -> ProviderFinding:
    """Spec: Discovery 4.3."""
    found = members.get("issuer")
    if found != issuer:
        remedy = "Declare the issuer as the provider writes it, byte for byte, if that is the provider you mean."
        return _failure("issuer", IssuerMismatch.code, f"the provider calls itself {found!r}", remedy)
    return _ok("issuer", issuer)


def check_members(members: Mapping[str, Any], *, allow_loopback_http: bool) -> Iterator[ProviderFinding]:
    """The endpoints are there and https, and nothing that we read is of another type. Spec: Discovery 3."""
    wrong = [name for name in (*REQUIRED_ENDPOINTS, *OPTIONAL_ENDPOINTS) if not _is_valid_endpoint(members, name)]
    wrong += [name for name in _LIST_MEMBERS if _find_string_list(members, name) is None and name in members]
    wrong += [name for name in _BOOLEAN_MEMBERS if not isinstance(members.get(name, False), bool)]
    if wrong:
        told = f"missing, or of a wrong type: {', '.join(wrong)}"
        yield _failure("metadata", MetadataInvalid.code, told, "The provider must mend its metadata.")
    insecure = [name for name in list_endpoint_names(members) if not is_allowed_url(members[name], allow_loopback_http)]
    if insecure:
        told = f"no https: {', '.join(insecure)}"
        yield _failure("metadata", TransportNotHTTPS.code, told, "The provider must serve it by https.")
    if not wrong and not insecure:
        yield _ok("metadata", f"{len(list_endpoint_names(members))} endpoints")


def list_endpoint_names(members: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the endpoints that we may use and that are there."""
    return tuple(name for name in (*REQUIRED_ENDPOINTS, *OPTIONAL_ENDPOINTS) if isinstance(members.get(name), str))


def is_allowed_url(url: str, allow_loopback_http: bool) -> bool:
    """Say whether a request may be sent there."""
    try:
        validate_https_url(url, allow_loopback_http=allow_loopback_http)
    except TransportNotHTTPS:
        return False
    return True


def list_usable_algs(members: Mapping[str, Any], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the allowed algorithms that the OP signs ID Tokens with."""
    offered = _find_string_list(members, "id_token_signing_alg_values_supported") or ()
    return tuple(alg for alg in allowed if alg in offered)


def check_algorithms(members: Mapping[str, Any], *, allowed: tuple[str, ...]) -> ProviderFinding:
    """Spec: Discovery 3 (id_token_signing_alg_values_supported)."""
    offered = _find_string_list(members, "id_token_signing_alg_values_supported") or ()
    both = list_usable_algs(members, allowed)
    if not both:
        told = f"offered: {', '.join(offered) or 'none'}; allowed: {', '.join(allowed)}"
        remedy = "Have the client registered with one of the allowed algorithms, or allow one that is offered."
        return _failure("algorithms", AlgUnsupported.code, told, remedy)
    return _ok("algorithms", f"ID Tokens: {', '.join(both)}")


def check_keys(response: TransportResponse, *, algs: tuple[str, ...]) -> Iterator[ProviderFinding]:
    """There is one key for each token that may come. algs: offered and allowed. Spec: Core 10.1.1; RFC 7517 5."""
    try:
        keys = process_jwks_response(response).keys
    except MetadataInvalid as error:
        yield _failure("keys", error.code, "jwks_uri gives no key set", "The provider must mend it.")
        return
    fitting = {alg: [key.kid for key in keys if key.can_verify(alg)] for alg in algs}
    without = [alg for alg, kids in fitting.items() if not kids]
    if len(without) == len(algs):
        told = f"none of {len(keys)} keys fits {', '.join(algs) or 'an allowed algorithm'}"
        remedy = "The provider must publish a key for it: RSA of 2048 bits or more, P-256, or Ed25519."
        yield _failure("keys", KeyNotFound.code, told, remedy)
        return
    if without:
        told = f"no key fits {', '.join(without)}: an ID Token so signed is refused"
        yield _warning("keys", KeyNotFound.code, told, "Have the client registered with another algorithm.")
    twice = [alg for alg, kids in fitting.items() if len(set(kids)) < len(kids)]
    if twice:
        told = f"several keys of one name, or of none, fit {', '.join(twice)}: no token can tell which"
        yield _failure("keys", KeyNotFound.code, told, "The provider must give each key a kid of its own.")
    if not without and not twice:
        yield _ok("keys", "; ".join(f"{alg}: {len(kids)}" for alg, kids in fitting.items()))


def check_pairwise(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> ProviderFinding:
    """Spec: Discovery 3, Core 8. How this very client is registered is nowhere to be seen."""
    is_offered = "pairwise" in (_find_string_list(members, "subject_types_supported") or ())
    if declaration.subject_type == "public":
        remedy = "Declare pairwise, and have the client registered so." if is_offered else "Ask the provider for it."
        return _warning("pairwise", "django_phi_oidc.W001", "public subjects are declared", remedy)
    if not is_offered:
        remedy = "Ask the provider for pairwise subjects; subject_type: public does without, and is told by check."
        return _failure("pairwise", PairwiseUnsupported.code, "not offered", remedy)
    return _ok("pairwise", "offered; the client must be registered with subject_type pairwise")


def check_pkce(members: Mapping[str, Any]) -> ProviderFinding:
    """S256 is sent in any case. Spec: RFC 7636 4.3, RFC 8414 2."""
    methods = _find_string_list(members, "code_challenge_methods_supported")
    if methods is None:
        return _warning("pkce", "pkce_untold", "the provider does not say", "Ask the provider whether it checks S256.")
    if "S256" not in methods:
        told = f"S256 is not among {', '.join(methods) or 'none'}"
        return _failure("pkce", "pkce_unsupported", told, "Ask the provider for S256 (RFC 7636).")
    return _ok("pkce", "S256")


def check_par(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> ProviderFinding:
    """Spec: RFC 9126 5."""
    is_offered = isinstance(members.get("pushed_authorization_request_endpoint"), str)
    if declaration.par == "require" and not is_offered:
        return _failure("par", PARUnsupported.code, "required, and not offered", "Ask the provider, or declare auto.")
    if declaration.par == "never":
        if members.get("require_pushed_authorization_requests") is True:
            return _failure("par", PARUnsupported.code, "never, and demanded", "Declare auto.")
        return _warning("par", "django_phi_oidc.W013", "requests are never pushed", "Declare auto.")
    return _ok("par", "requests are pushed" if is_offered else "not offered; requests go by the browser")


def check_client_authentication(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> ProviderFinding:
    """Spec: Discovery 3 (where nothing is listed, client_secret_basic alone is offered)."""
    method = declaration.token_endpoint_auth_method
    offered = _find_string_list(members, "token_endpoint_auth_methods_supported")
    if method not in (("client_secret_basic",) if offered is None else offered):
        told = f"{method} is not among {', '.join(offered or ()) or 'what it offers'}"
        return _failure("client", "client_auth_unsupported", told, "Declare a token_endpoint_auth_method that is.")
    algs = _find_string_list(members, "token_endpoint_auth_signing_alg_values_supported")
    if method == "private_key_jwt" and algs is not None:
        alg = declaration.get_assertion_alg(declaration.client_keys[0])
        if alg not in algs:
            told = f"assertions are signed with {alg}, and {', '.join(algs)} are taken"
            return _failure("client", "client_auth_unsupported", told, "Declare a key, or an algorithm, that is taken.")
    return _ok("client", method)


def check_revocation(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> ProviderFinding:
    """Spec: RFC 7009, RFC 8414 2."""
    if not isinstance(members.get("revocation_endpoint"), str):
        if declaration.revocation == "best_effort":
            told = "no endpoint: tokens outlive a logout"
            return _warning("revocation", "django_phi_oidc.W002", told, "Ask the provider for RFC 7009.")
        remedy = "Ask the provider for RFC 7009; revocation: best_effort does without, and is told by check."
        return _failure("revocation", RevocationUnsupported.code, "no endpoint", remedy)
    methods = _find_string_list(members, "revocation_endpoint_auth_methods_supported")
    if methods is not None and declaration.token_endpoint_auth_method not in methods:
        told = f"{declaration.token_endpoint_auth_method} is not among {', '.join(methods)}"
        return _failure("revocation", "client_auth_unsupported", told, "Declare a method that both endpoints take.")
    return _ok("revocation", "offered")


def check_introspection(members: Mapping[str, Any]) -> ProviderFinding:
    """Whether the OP can be asked about access tokens, where `API` declares that it is. Spec: RFC 7662, RFC 8414 2."""
    if not isinstance(members.get("introspection_endpoint"), str):
        remedy = "Ask the provider for RFC 7662, or declare the method jwt."
        return _failure("api", IntrospectionFailed.code, "no introspection endpoint, so no token is good", remedy)
    return _ok("api", "can be asked about access tokens")


def check_client_is_known(response: TransportResponse) -> ProviderFinding:
    """What the OP said when a token that never was should be revoked: whether it knows us. Spec: RFC 7009 2.2."""
    outcome, told = process_revocation_response(response), f"the revocation endpoint answers {response.status}"
    if outcome.result == "done":
        return _ok("client", "the provider knows us: it took a revocation")
    if outcome.result == "retry_slowly":
        remedy = "client_id, and client_secret or client_keys, must be those of the registration."
        return _failure("client", "invalid_client", told, remedy)
    return _warning("client", "revocation_failed", told, "It must answer 200, whether it knows the token or not.")


def check_logout(members: Mapping[str, Any]) -> Iterator[ProviderFinding]:
    """Spec: RP-Initiated Logout 2.1; Back-Channel Logout 2.1."""
    if isinstance(members.get("end_session_endpoint"), str):
        yield _ok("logout", "the provider's own session ends, too")
    else:
        told = "no end_session_endpoint: who signs out here stays signed in at the provider"
        yield _warning("logout", "end_session_absent", told, "Ask the provider for RP-initiated logout.")
    if members.get("backchannel_logout_supported") is not True:
        told = "no back-channel: who signs out elsewhere stays signed in here, until a timeout"
        yield _warning("logout", "backchannel_absent", told, "Ask the provider for Back-Channel Logout.")
    elif members.get("backchannel_logout_session_supported") is not True:
        told = "back-channel without sid: a logout ends all sessions of the person"
        yield _warning("logout", "backchannel_without_sid", told, "Ask the provider for sid in logout tokens.")
    else:
        yield _ok("logout", "back-channel, by session: register oidc/backchannel-logout/")


def check_response_issuer(members: Mapping[str, Any], *, is_only_provider: bool) -> ProviderFinding:
    """is_alone: no other provider is declared, that this one's answer could be taken for. Spec: RFC 9207 3."""
    if members.get("authorization_response_iss_parameter_supported") is True:
        return _ok("mix-up", "answers name their issuer")
    if is_only_provider:
        return _ok("mix-up", "answers do not name their issuer; there is no other provider")
    told = "answers do not name their issuer, and there are other providers"
    return _warning("mix-up", IssMissing.code, told, "Ask the provider for RFC 9207.")


def check_requested_claims(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration, claims: Mapping[str, ClaimDeclaration]
) -> ProviderFinding:
    """What we ask for is what the OP says that it has. It may have more. Spec: Discovery 3, Core 5.5."""
    if declaration.claims_request != "scopes" and members.get("claims_parameter_supported") is not True:
        told = "the claims parameter is not offered"
        return _warning("claims", "claims_parameter_unsupported", told, "Declare claims_request: scopes.")
    scopes, offered = _find_string_list(members, "scopes_supported"), _find_string_list(members, "claims_supported")
    missing = [
        each
        for each in build_claims_request(claims, provider_declaration=declaration).scope.split()
        if scopes and each not in scopes
    ]
    missing += [name for name in claims if offered and name not in offered and name not in PROTOCOL_CLAIMS]
    if missing:
        told = f"the provider names no scope or claim {', '.join(missing)}"
        return _warning("claims", "claim_untold", told, "Ask the provider, and have the client registered for it.")
    return _ok("claims", "what is asked for is offered" if scopes or offered else "the provider does not say")


def check_acr_values(members: Mapping[str, Any], *, requested: tuple[str, ...]) -> ProviderFinding:
    """Spec: Discovery 3 (acr_values_supported)."""
    offered = _find_string_list(members, "acr_values_supported")
    if requested and offered is not None and not set(requested) & set(offered):
        told = f"none of {', '.join(requested)} is among {', '.join(offered) or 'none'}"
        return _warning("assurance", AcrInsufficient.code, told, "Declare acr_values that the provider knows.")
    return _ok("assurance", f"asked for: {', '.join(requested)}" if requested else "no acr is asked for")


def check_access_token_lifetime(alert_count: int | None, *, limit: timedelta) -> ProviderFinding:
    """alerts: of access tokens that lived for long, in the trail of late; None: it could not be read."""
    told = f"not to be seen without a sign-in; one of more than {limit} is refused"
    if alert_count:
        told = (
            f"{alert_count} of the last 30 days' sign-ins brought access tokens of more than an hour, or did not tell"
        )
        return _warning("lifetimes", AccessTokenLifetime.code, told, "Ask the provider for ten minutes.")
    return _ok("lifetimes", told if alert_count is None else f"{told}; no alert in 30 days")


def check_clock(
    headers: Mapping[str, str], *, requested_at: datetime, received_at: datetime, leeway: timedelta
) -> ProviderFinding:
    """Date, which is cut to the second, beside our own time. Spec: RFC 9110 6.6.1, RFC 9111 5.1."""
    try:
        sent = parsedate_to_datetime(headers.get("date", ""))
        # Every date is in GMT; one whose zone does not say so is naive.
        sent = sent.replace(tzinfo=sent.tzinfo or UTC) + timedelta(seconds=int(headers.get("age", "0")[:9]))
        ahead, behind = sent - received_at, requested_at - (sent + timedelta(seconds=1))
    except (ValueError, OverflowError):
        return _warning("clock", "clock_untold", "the answer has no Date", "Ask the provider; or compare by hand.")
    apart = max(ahead, behind, timedelta(0))
    told = f"{apart.total_seconds():.0f} s {'ahead' if ahead > behind else 'behind'}" if apart else "no difference"
    if apart > leeway:
        told = f"{told}; {leeway.total_seconds():.0f} s are allowed"
        return _failure("clock", IatInvalid.code, told, "Set both clocks by NTP. Tokens are refused until then.")
    if apart > leeway / 2:
        return _warning("clock", IatInvalid.code, told, "Set both clocks by NTP.")
    return _ok("clock", told)


def _is_valid_endpoint(members: Mapping[str, Any], name: str) -> bool:
    value = members.get(name)
    return isinstance(value, str) and bool(value) if name in members else name in OPTIONAL_ENDPOINTS


def _find_string_list(members: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """Return the strings of that member; None where it is not there, or is no list of them."""
    value = members.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)
