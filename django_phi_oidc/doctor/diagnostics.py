"""Checks of a provider, as functions of its responses. No Django.

Each finding is ok, a warning (it works but should be fixed, or cannot be determined), or a failure (sign-ins are
refused, or are not safe), with the code of the rule if there is one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from ..claims.minimization import PROTOCOL_CLAIMS, build_claims_request
from ..config.claims import ClaimDeclaration
from ..config.providers import ProviderDeclaration
from ..errors import Code, MetadataError, SignInRefused, TransportError
from ..oidc.metadata import OPTIONAL_ENDPOINTS, REQUIRED_ENDPOINTS, process_jwks_response, validate_https_url
from ..oidc.revocation import process_revocation_response
from ..oidc.transport import TransportResponse, parse_json_body
from .known_providers import find_known_provider

FindingLevel = Literal["ok", "warning", "failure"]
CERTIFICATE_EXPIRY_WARNING = timedelta(days=30)
_LIST_MEMBERS = ("prompt_values_supported", "subject_types_supported", "id_token_signing_alg_values_supported")
_BOOLEAN_MEMBERS = ("require_pushed_authorization_requests", "authorization_response_iss_parameter_supported")
_MAX_TEXT_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFinding:
    check: str
    level: FindingLevel
    text: str
    code: str = ""
    """Of the rule, or a code of the doctor; empty when it is ok."""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSPeer:
    host: str
    tls_version: str = ""
    certificate_expires_at: datetime | None = None
    """None: the address is http, or is reached through a proxy."""


def _ok(check: str, text: str) -> ProviderFinding:
    return ProviderFinding(check=check, level="ok", text=sanitize_text(text))


def _warning(check: str, code: str, text: str, remedy: str) -> ProviderFinding:
    return ProviderFinding(check=check, level="warning", code=code, text=sanitize_text(text), remedy=remedy)


def _failure(check: str, code: str, text: str, remedy: str) -> ProviderFinding:
    return ProviderFinding(check=check, level="failure", code=code, text=sanitize_text(text), remedy=remedy)


def sanitize_text(text: str) -> str:
    """Return text, which may come from the provider, as safe for a terminal: ASCII without look-alike characters."""
    return (text if text.isascii() and text.isprintable() else ascii(text))[:_MAX_TEXT_LENGTH]


def check_peer(peer: TLSPeer, *, now: datetime) -> ProviderFinding:
    """Check TLS and the expiry of the certificate, which the handshake has verified."""
    if not peer.tls_version:
        text = f"{peer.host}: http, not encrypted"
        return _warning("tls", Code.TRANSPORT_NOT_HTTPS, text, "Use it only on loopback.")
    if peer.certificate_expires_at is None:
        return _ok("tls", f"{peer.host}: verified; the certificate's expiry is not visible through the proxy")
    days = (peer.certificate_expires_at - now).days
    text = f"{peer.host}: {peer.tls_version}, certificate until {peer.certificate_expires_at:%Y-%m-%d} ({days} days)"
    if peer.certificate_expires_at - now < CERTIFICATE_EXPIRY_WARNING:
        return _warning("tls", "certificate_expires", text, "The provider must renew it before that day.")
    return _ok("tls", text)


def diagnose_request_error(check: str, error: SignInRefused) -> ProviderFinding:
    """Return the failure of a request."""
    return _failure(check, error.code, str(error), _REMEDIES.get(error.code, "Ask the provider."))


_REMEDIES = {
    "transport_tls": "The provider must fix its certificate, or set ca_bundle to the file of its CA.",
    "transport_unreachable": "Check the host name of the issuer, DNS, the firewall, and proxy.",
    "transport_timeout": "Check the network, and the load of the provider.",
    "transport_redirect": "Declare the issuer that the provider redirects to.",
    "transport_not_https": "Declare an https issuer. allow_loopback_http is for development on loopback.",
    "metadata_invalid": "Check the issuer: its /.well-known/openid-configuration must be a JSON object.",
}


def find_metadata_members(response: TransportResponse) -> Mapping[str, Any] | None:
    """Return the metadata; None if the response has none. Spec: Discovery 4.2."""
    return parse_json_body(response) if response.status == 200 else None


def check_discovery(response: TransportResponse) -> ProviderFinding:
    """Spec: Discovery 4.2."""
    if find_metadata_members(response) is None:
        text = f"no metadata: status {response.status}, {len(response.body)} bytes"
        return _failure("discovery", Code.METADATA_INVALID, text, _REMEDIES[Code.METADATA_INVALID])
    return _ok("discovery", f"{len(response.body)} bytes of metadata")


def check_issuer(members: Mapping[str, Any], *, issuer: str) -> ProviderFinding:
    """Spec: Discovery 4.3."""
    metadata_issuer = members.get("issuer")
    if metadata_issuer != issuer:
        remedy = "Declare the issuer exactly as in the metadata, if this is the intended provider."
        return _failure("issuer", Code.ISSUER_MISMATCH, f"the metadata names {metadata_issuer!r}", remedy)
    return _ok("issuer", issuer)


def check_members(members: Mapping[str, Any], *, allow_loopback_http: bool) -> Iterator[ProviderFinding]:
    """Check that the endpoints exist and use https, and the types of the members. Spec: Discovery 3."""
    wrong = [name for name in (*REQUIRED_ENDPOINTS, *OPTIONAL_ENDPOINTS) if not _is_valid_endpoint(members, name)]
    wrong += [name for name in _LIST_MEMBERS if _find_string_list(members, name) is None and name in members]
    wrong += [name for name in _BOOLEAN_MEMBERS if not isinstance(members.get(name, False), bool)]
    if wrong:
        text = f"missing or of the wrong type: {', '.join(wrong)}"
        yield _failure("metadata", Code.METADATA_INVALID, text, "The provider must fix its metadata.")
    insecure = [name for name in list_endpoint_names(members) if not is_allowed_url(members[name], allow_loopback_http)]
    if insecure:
        text = f"not https: {', '.join(insecure)}"
        yield _failure("metadata", Code.TRANSPORT_NOT_HTTPS, text, "The provider must serve it over https.")
    if not wrong and not insecure:
        yield _ok("metadata", f"{len(list_endpoint_names(members))} endpoints")


def list_endpoint_names(members: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the existing endpoints that the portal may use."""
    return tuple(name for name in (*REQUIRED_ENDPOINTS, *OPTIONAL_ENDPOINTS) if isinstance(members.get(name), str))


def is_allowed_url(url: str, allow_loopback_http: bool) -> bool:
    """Return True if a request may be sent there."""
    try:
        validate_https_url(url, allow_loopback_http=allow_loopback_http)
    except TransportError:
        return False
    return True


def list_usable_algs(members: Mapping[str, Any], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the allowed algorithms that the provider offers for ID Tokens."""
    offered = _find_string_list(members, "id_token_signing_alg_values_supported") or ()
    return tuple(alg for alg in allowed if alg in offered)


def check_algorithms(members: Mapping[str, Any], *, allowed: tuple[str, ...]) -> ProviderFinding:
    """Spec: Discovery 3 (id_token_signing_alg_values_supported)."""
    offered = _find_string_list(members, "id_token_signing_alg_values_supported") or ()
    usable = list_usable_algs(members, allowed)
    if not usable:
        text = f"offered: {', '.join(offered) or 'none'}; allowed: {', '.join(allowed)}"
        remedy = "Register the client with an allowed algorithm, or allow an offered one."
        return _failure("algorithms", Code.ALG_UNSUPPORTED, text, remedy)
    return _ok("algorithms", f"ID Tokens: {', '.join(usable)}")


def check_keys(response: TransportResponse, *, algs: tuple[str, ...]) -> Iterator[ProviderFinding]:
    """Check that each algorithm has one key per kid. algs: offered and allowed. Spec: Core 10.1.1; RFC 7517 5."""
    try:
        keys = process_jwks_response(response).keys
    except MetadataError as error:
        yield _failure("keys", error.code, "jwks_uri returns no key set", "The provider must fix it.")
        return
    kids_by_alg = {alg: [key.kid for key in keys if key.can_verify(alg)] for alg in algs}
    algs_without_key = [alg for alg, kids in kids_by_alg.items() if not kids]
    if len(algs_without_key) == len(algs):
        text = f"none of {len(keys)} keys is usable for {', '.join(algs) or 'an allowed algorithm'}"
        remedy = "The provider must publish a key for it: RSA of 2048 bits or more, P-256, or Ed25519."
        yield _failure("keys", Code.KEY_NOT_FOUND, text, remedy)
        return
    if algs_without_key:
        text = f"no key is usable for {', '.join(algs_without_key)}: ID Tokens signed with it are refused"
        yield _warning("keys", Code.KEY_NOT_FOUND, text, "Register the client with another algorithm.")
    ambiguous_algs = [alg for alg, kids in kids_by_alg.items() if len(set(kids)) < len(kids)]
    if ambiguous_algs:
        text = f"several keys for {', '.join(ambiguous_algs)} have the same kid, or none: the key is ambiguous"
        yield _failure("keys", Code.KEY_NOT_FOUND, text, "The provider must give each key a different kid.")
    if not algs_without_key and not ambiguous_algs:
        yield _ok("keys", "; ".join(f"{alg}: {len(kids)}" for alg, kids in kids_by_alg.items()))


def check_pairwise(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> ProviderFinding:
    """Spec: Discovery 3, Core 8. NOT checked: how this client is registered, which the metadata does not show."""
    is_offered = "pairwise" in (_find_string_list(members, "subject_types_supported") or ())
    if declaration.subject_type == "public":
        remedy = "Declare pairwise, and register the client so." if is_offered else "Ask the provider for it."
        return _warning("pairwise", "django_phi_oidc.W001", "public subjects are declared", remedy)
    if not is_offered:
        remedy = "Ask the provider for pairwise subjects, or declare subject_type: public, which `check` reports."
        return _failure("pairwise", Code.PAIRWISE_UNSUPPORTED, "not offered", remedy)
    return _ok("pairwise", "offered; the client must be registered with subject_type pairwise")


def check_pkce(members: Mapping[str, Any]) -> ProviderFinding:
    """The portal always sends S256. Spec: RFC 7636 4.3, RFC 8414 2."""
    methods = _find_string_list(members, "code_challenge_methods_supported")
    if methods is None:
        return _warning("pkce", "pkce_untold", "the metadata does not say", "Ask the provider whether it checks S256.")
    if "S256" not in methods:
        text = f"S256 is not among {', '.join(methods) or 'none'}"
        return _failure("pkce", "pkce_unsupported", text, "Ask the provider for S256 (RFC 7636).")
    return _ok("pkce", "S256")


def check_par(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> ProviderFinding:
    """Spec: RFC 9126 5."""
    is_offered = isinstance(members.get("pushed_authorization_request_endpoint"), str)
    if declaration.par == "require" and not is_offered:
        return _failure("par", Code.PAR_UNSUPPORTED, "required, but not offered", "Ask the provider, or declare auto.")
    if declaration.par == "never":
        if members.get("require_pushed_authorization_requests") is True:
            text = "declared never, but the provider requires it"
            return _failure("par", Code.PAR_UNSUPPORTED, text, "Declare auto.")
        return _warning("par", "django_phi_oidc.W013", "requests are never pushed", "Declare auto.")
    return _ok("par", "requests are pushed" if is_offered else "not offered; requests are sent through the browser")


def check_client_authentication(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> ProviderFinding:
    """Spec: Discovery 3 (without a list, only client_secret_basic is offered)."""
    method = declaration.token_endpoint_auth_method
    offered = _find_string_list(members, "token_endpoint_auth_methods_supported")
    if method not in (("client_secret_basic",) if offered is None else offered):
        text = f"{method} is not among {', '.join(offered or ()) or 'the offered methods'}"
        return _failure("client", "client_auth_unsupported", text, "Declare an offered token_endpoint_auth_method.")
    algs = _find_string_list(members, "token_endpoint_auth_signing_alg_values_supported")
    if method == "private_key_jwt" and algs is not None:
        alg = declaration.get_assertion_alg(declaration.client_keys[0])
        if alg not in algs:
            text = f"assertions are signed with {alg}, but {', '.join(algs)} are accepted"
            return _failure("client", "client_auth_unsupported", text, "Declare an accepted key or algorithm.")
    return _ok("client", method)


def check_revocation(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> ProviderFinding:
    """Spec: RFC 7009, RFC 8414 2."""
    if not isinstance(members.get("revocation_endpoint"), str):
        if declaration.revocation == "best_effort":
            text = "no endpoint: tokens stay valid after logout"
            return _warning("revocation", "django_phi_oidc.W002", text, "Ask the provider for RFC 7009.")
        remedy = "Ask the provider for RFC 7009, or declare revocation: best_effort, which `check` reports."
        return _failure("revocation", Code.REVOCATION_UNSUPPORTED, "no endpoint", remedy)
    methods = _find_string_list(members, "revocation_endpoint_auth_methods_supported")
    if methods is not None and declaration.token_endpoint_auth_method not in methods:
        text = f"{declaration.token_endpoint_auth_method} is not among {', '.join(methods)}"
        return _failure("revocation", "client_auth_unsupported", text, "Declare a method that both endpoints accept.")
    return _ok("revocation", "offered")


def check_introspection(members: Mapping[str, Any]) -> ProviderFinding:
    """Check for the introspection endpoint, if `API` declares introspection. Spec: RFC 7662, RFC 8414 2."""
    if not isinstance(members.get("introspection_endpoint"), str):
        remedy = "Ask the provider for RFC 7662, or declare the method jwt."
        text = "no introspection endpoint, so every token is refused"
        return _failure("api", Code.INTROSPECTION_FAILED, text, remedy)
    return _ok("api", "introspection is offered")


def check_client_is_known(response: TransportResponse) -> ProviderFinding:
    """Check the response to the revocation of a random token: is the client known? Spec: RFC 7009 2.2."""
    outcome, text = process_revocation_response(response), f"the revocation endpoint returned {response.status}"
    if outcome.result == "done":
        return _ok("client", "the provider knows the client: it accepted a revocation")
    if outcome.result == "retry_slowly":
        remedy = "client_id, and client_secret or client_keys, must be those of the registration."
        return _failure("client", "invalid_client", text, remedy)
    return _warning("client", "revocation_failed", text, "It must return 200 for unknown tokens too.")


def check_logout(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> Iterator[ProviderFinding]:
    """Spec: RP-Initiated Logout 2, 2.1; Back-Channel Logout 2.1."""
    yield _check_rp_initiated_logout(members, declaration=declaration)
    if members.get("backchannel_logout_supported") is not True:
        text = "no back-channel logout: after logout elsewhere, users stay signed in here until a timeout"
        yield _warning("logout", "backchannel_absent", text, "Ask the provider for Back-Channel Logout.")
    elif members.get("backchannel_logout_session_supported") is not True:
        text = "back-channel logout without sid: a logout ends all sessions of the user"
        yield _warning("logout", "backchannel_without_sid", text, "Ask the provider for sid in logout tokens.")
    else:
        yield _ok("logout", "back-channel logout per session: register oidc/backchannel-logout/")


def check_logout_sub(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> Iterator[ProviderFinding]:
    """Warn of Keycloak up to 26.1: its logout tokens to pairwise clients have the user's id as sub.

    The version is not in the metadata. Spec: Core 8; Back-Channel Logout 2.4.
    """
    known = find_known_provider(members)
    if known and known.has_raw_logout_sub and declaration.subject_type == "pairwise":
        text = "Keycloak up to 26.1: sub in logout tokens is not the pairwise one, so only sid finds a session"
        remedy = "Update to 26.2, or switch on 'Backchannel logout session required' for the client."
        yield _warning("logout", "logout_sub_mismatch", text, remedy)


def _check_rp_initiated_logout(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> ProviderFinding:
    if not isinstance(members.get("end_session_endpoint"), str):
        text = "no end_session_endpoint: after logout, users stay signed in at the provider"
        return _warning("logout", "end_session_absent", text, "Ask the provider for RP-initiated logout.")
    known, policy = find_known_provider(members), declaration.id_token_hint
    parameter = known.required_end_session_parameter if known else ""
    if known and parameter and parameter not in dict(declaration.end_session_parameters):
        text = f"{known.name} requires {parameter}: without it a logout ends on its error page"
        remedy = f"Declare end_session_parameters with {parameter}, and id_token_hint: never."
        return _warning("logout", "end_session_parameter_missing", text, remedy)
    if policy == "always":
        return _ok("logout", "the session at the provider ends too: the ID Token is sent as the hint")
    if known and known.requires_id_token_hint:
        condition = "" if policy == "never" else " if it contains claims about the person"
        text = f"{known.name} requires id_token_hint, but the ID Token is not sent{condition}: its session stays"
        remedy = "Declare id_token_hint: always, or ask the provider to keep the claims out of ID Tokens."
        return _warning("logout", "id_token_hint_required", text, remedy)
    if policy == "never" or parameter:
        return _ok("logout", "the browser is sent to the provider without a hint: sign out once to see what it does")
    name = known.name if known else "the provider"
    text = "ends the session there too, if the ID Token contains no claims about the person; else a page asks the user"
    return _ok("logout", f"{name} {text}")


def check_response_issuer(members: Mapping[str, Any], *, is_only_provider: bool) -> ProviderFinding:
    """Check the protection against mix-up, which needs a second declared provider. Spec: RFC 9207 3."""
    if members.get("authorization_response_iss_parameter_supported") is True:
        return _ok("mix-up", "responses name their issuer")
    if is_only_provider:
        return _ok("mix-up", "responses do not name their issuer; there is no other provider")
    text = "responses do not name their issuer, and there are other providers"
    return _warning("mix-up", Code.ISS_MISSING, text, "Ask the provider for RFC 9207.")


def check_requested_claims(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration, claims: Mapping[str, ClaimDeclaration]
) -> ProviderFinding:
    """Check that the requested scopes and claims are listed; lists may be partial. Spec: Discovery 3, Core 5.5."""
    if declaration.claims_request != "scopes" and members.get("claims_parameter_supported") is not True:
        text = "the claims parameter is not offered"
        return _warning("claims", "claims_parameter_unsupported", text, "Declare claims_request: scopes.")
    scopes, offered = _find_string_list(members, "scopes_supported"), _find_string_list(members, "claims_supported")
    requested_scopes = build_claims_request(claims, provider_declaration=declaration).scope.split()
    missing = [scope for scope in requested_scopes if scopes and scope not in scopes]
    missing += [name for name in claims if offered and name not in offered and name not in PROTOCOL_CLAIMS]
    if missing:
        text = f"the metadata does not list the scope or claim {', '.join(missing)}"
        return _warning("claims", "claim_untold", text, "Ask the provider, and register the client for it.")
    return _ok("claims", "all requested claims are offered" if scopes or offered else "the metadata does not say")


def check_acr_values(members: Mapping[str, Any], *, requested: tuple[str, ...]) -> ProviderFinding:
    """Spec: Discovery 3 (acr_values_supported)."""
    offered = _find_string_list(members, "acr_values_supported")
    if requested and offered is not None and not set(requested) & set(offered):
        text = f"none of {', '.join(requested)} is among {', '.join(offered) or 'none'}"
        return _warning("assurance", Code.ACR_INSUFFICIENT, text, "Declare acr_values that the provider knows.")
    return _ok("assurance", f"requested: {', '.join(requested)}" if requested else "no acr is requested")


def check_reauthentication(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> Iterator[ProviderFinding]:
    """Warn if the metadata do not offer what a sign-in after a timeout requires. Spec: Discovery 3; Core 3.1.2.1."""
    if declaration.reauthentication != "verify":
        text = "after a timeout, single sign-on may suffice to sign in again"
        yield _warning("assurance", "django_phi_oidc.W034", text, "Declare verify, if the provider sends auth_time.")
        return
    claims = _find_string_list(members, "claims_supported")
    if claims is not None and "auth_time" not in claims:
        text = "auth_time is not listed; without it, a sign-in after a timeout is refused"
        yield _warning("assurance", Code.AUTH_TIME_MISSING, text, "Ask the provider, or declare reauthentication.")


def check_access_token_lifetime(alert_count: int | None, *, limit: timedelta) -> ProviderFinding:
    """alert_count: recent alerts about long lifetimes; None: the audit log could not be read."""
    text = f"only visible at a sign-in; more than {limit} is refused"
    if alert_count:
        text = f"{alert_count} sign-ins in 30 days had access tokens with a lifetime above an hour, or without one"
        return _warning("lifetimes", Code.ACCESS_TOKEN_LIFETIME, text, "Ask the provider for ten minutes.")
    return _ok("lifetimes", text if alert_count is None else f"{text}; no alert in 30 days")


def check_audit_log(deviations: Sequence[str]) -> Iterator[ProviderFinding]:
    """Report how the triggers of the audit log differ from what the migrations made."""
    for text in deviations:
        remedy = "manage.py phi_oidc audit repair, as the owner of the tables; then audit verify."
        yield _failure("audit log", "protection_altered", text, remedy)


def check_clock(
    headers: Mapping[str, str], *, requested_at: datetime, received_at: datetime, leeway: timedelta
) -> ProviderFinding:
    """Compare the Date header, which has whole seconds, with the local time. Spec: RFC 9110 6.6.1, RFC 9111 5.1."""
    try:
        sent = parsedate_to_datetime(headers.get("date", ""))
        # Dates are in GMT; one without a zone is parsed as naive.
        sent = sent.replace(tzinfo=sent.tzinfo or UTC) + timedelta(seconds=int(headers.get("age", "0")[:9]))
        ahead, behind = sent - received_at, requested_at - (sent + timedelta(seconds=1))
    except (ValueError, OverflowError):
        return _warning("clock", "clock_untold", "the response has no Date", "Ask the provider, or compare by hand.")
    skew = max(ahead, behind, timedelta(0))
    text = f"{skew.total_seconds():.0f} s {'ahead' if ahead > behind else 'behind'}" if skew else "no difference"
    if skew > leeway:
        text = f"{text}; {leeway.total_seconds():.0f} s are allowed"
        return _failure("clock", Code.IAT_INVALID, text, "Set both clocks by NTP. Tokens are refused until then.")
    if skew > leeway / 2:
        return _warning("clock", Code.IAT_INVALID, text, "Set both clocks by NTP.")
    return _ok("clock", text)


def _is_valid_endpoint(members: Mapping[str, Any], name: str) -> bool:
    value = members.get(name)
    return isinstance(value, str) and bool(value) if name in members else name in OPTIONAL_ENDPOINTS


def _find_string_list(members: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """Return the strings of that member; None if it is missing or not a list of strings."""
    value = members.get(name)
    return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else None
