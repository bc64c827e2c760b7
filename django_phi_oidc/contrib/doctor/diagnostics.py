"""Checks of a provider, as functions of its responses. No Django.

Each finding is ok, a warning (it works but should be fixed, or cannot be determined), or a failure
(sign-ins are refused, or are not safe), with the code of the rule if there is one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from ...claims.minimization import PROTOCOL_CLAIMS, build_claims_request
from ...config.certificates import CERTIFICATE_EXPIRY_WARNING
from ...config.claims import ClaimDeclaration
from ...config.providers import ProviderDeclaration
from ...errors import Code, MetadataError, TransportError
from ...extensions import account_sources
from ...http.transport import TransportResponse, is_outage_status, parse_json_body
from ...oidc.dpop import CLIENT_PROOF_ALG
from ...oidc.jwks import JSONWebKeySet
from ...oidc.metadata import (
    OPTIONAL_ENDPOINTS,
    REQUIRED_ENDPOINTS,
    process_jwks_response,
    validate_https_url,
)
from ...oidc.remedies import find_remedy
from ...oidc.revocation import process_revocation_response
from ..common.api_errors import APICode
from ..common.provider_findings import ProviderFinding, sanitize_text
from .known_providers import find_known_provider

_LIST_MEMBERS = (
    *(
        "prompt_values_supported",
        "subject_types_supported",
        "id_token_signing_alg_values_supported",
    ),
    "dpop_signing_alg_values_supported",
)
_BOOLEAN_MEMBERS = (
    *("require_pushed_authorization_requests", "authorization_response_iss_parameter_supported"),
    "tls_client_certificate_bound_access_tokens",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSPeer:
    host: str
    tls_version: str = ""
    certificate_expires_at: datetime | None = None
    """None: the address is http, or is reached through a proxy."""


def _ok(check: str, text: str) -> ProviderFinding:
    return ProviderFinding(check=check, level="ok", text=sanitize_text(text))


def _warning(check: str, code: str, text: str, remedy: str) -> ProviderFinding:
    return ProviderFinding(
        check=check, level="warning", code=code, text=sanitize_text(text), remedy=remedy
    )


def _failure(check: str, code: str, text: str, remedy: str) -> ProviderFinding:
    return ProviderFinding(
        check=check, level="failure", code=code, text=sanitize_text(text), remedy=remedy
    )


def check_peer(peer: TLSPeer, *, now: datetime) -> ProviderFinding:
    """Check TLS and the expiry of the certificate, which the handshake has verified."""
    if not peer.tls_version:
        text = f"{peer.host}: http, not encrypted"
        return _warning("tls", Code.TRANSPORT_NOT_HTTPS, text, "Use it only on loopback.")
    if peer.certificate_expires_at is None:
        return _ok(
            "tls",
            f"{peer.host}: verified; the certificate's expiry is not visible through the proxy",
        )
    days = (peer.certificate_expires_at - now).days
    text = (
        f"{peer.host}: {peer.tls_version}, certificate until "
        f"{peer.certificate_expires_at:%Y-%m-%d} ({days} days)"
    )
    if peer.certificate_expires_at - now < CERTIFICATE_EXPIRY_WARNING:
        return _warning(
            "tls", "certificate_expires", text, "The provider must renew it before that day."
        )
    return _ok("tls", text)


def find_metadata_members(response: TransportResponse) -> Mapping[str, Any] | None:
    """Return the metadata; None if the response has none. Spec: Discovery 4.2."""
    if response.status == 200:
        return parse_json_body(response)
    return None


def check_discovery(response: TransportResponse, *, url: str = "") -> ProviderFinding:
    """url: the declared one, if the document is not below the issuer. Spec: Discovery 4.2."""
    if is_outage_status(response.status):
        text = f"status {response.status}: try again later"
        return _failure(
            "discovery", Code.PROVIDER_UNAVAILABLE, text, find_remedy(Code.PROVIDER_UNAVAILABLE)
        )
    if find_metadata_members(response) is None:
        text = f"no metadata: status {response.status}, {len(response.body)} bytes"
        return _failure(
            "discovery", Code.METADATA_INVALID, text, find_remedy(Code.METADATA_INVALID)
        )
    return _ok("discovery", f"{len(response.body)} bytes of metadata{f' at {url}' if url else ''}")


def check_issuer(members: Mapping[str, Any], *, issuer: str) -> ProviderFinding:
    """Spec: Discovery 4.3."""
    metadata_issuer = members.get("issuer")
    if metadata_issuer != issuer:
        text = f"the metadata names {metadata_issuer!r}"
        if isinstance(metadata_issuer, str) and metadata_issuer.rstrip("/") == issuer.rstrip("/"):
            text += f", and not {issuer!r}: they differ in the slash at the end"
        return _failure("issuer", Code.ISSUER_MISMATCH, text, find_remedy(Code.ISSUER_MISMATCH))
    return _ok("issuer", issuer)


def check_metadata_issuer(declaration: ProviderDeclaration) -> Iterator[ProviderFinding]:
    """Report that the metadata may name another issuer than ID Tokens."""
    if declaration.metadata_issuer:
        text = (
            f"the metadata are those of {declaration.metadata_issuer}; ID Tokens must name "
            f"{declaration.issuer}"
        )
        yield _warning(
            "issuer",
            "django_phi_oidc.W120",
            text,
            "Ask the provider to publish metadata of its issuer.",
        )


def check_members(
    members: Mapping[str, Any], *, allow_loopback_http: bool, is_keys_url_optional: bool = False
) -> Iterator[ProviderFinding]:
    """Check that the endpoints exist and use https, and the types of the members. Spec: Discovery
    3.

    is_keys_url_optional: the source of the members may have the keys without a jwks_uri.
    """
    wrong = []
    for name in (*REQUIRED_ENDPOINTS, *OPTIONAL_ENDPOINTS):
        if not _is_valid_endpoint(members, name):
            wrong.append(name)
    if is_keys_url_optional and "jwks_uri" not in members:
        wrong.remove("jwks_uri")
    for name in _LIST_MEMBERS:
        if _find_string_list(members, name) is None and name in members:
            wrong.append(name)
    for name in _BOOLEAN_MEMBERS:
        if not isinstance(members.get(name, False), bool):
            wrong.append(name)
    for name in ("mtls_endpoint_aliases",):
        if not isinstance(members.get(name, {}), dict):
            wrong.append(name)
    if wrong:
        text = f"missing or of the wrong type: {', '.join(wrong)}"
        yield _failure(
            "metadata", Code.METADATA_INVALID, text, "The provider must fix its metadata."
        )
    insecure = []
    for name in list_endpoint_names(members):
        if not is_allowed_url(members[name], allow_loopback_http):
            insecure.append(name)
    if insecure:
        text = f"not https: {', '.join(insecure)}"
        yield _failure(
            "metadata", Code.TRANSPORT_NOT_HTTPS, text, "The provider must serve it over https."
        )
    if not wrong and not insecure:
        yield _ok("metadata", f"{len(list_endpoint_names(members))} endpoints")


def list_endpoint_names(members: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the existing endpoints that the portal may use."""
    endpoint_names = []
    for name in (*REQUIRED_ENDPOINTS, *OPTIONAL_ENDPOINTS):
        if isinstance(members.get(name), str):
            endpoint_names.append(name)
    return tuple(endpoint_names)


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
    usable_algs = []
    for alg in allowed:
        if alg in offered:
            usable_algs.append(alg)
    return tuple(usable_algs)


def check_algorithms(members: Mapping[str, Any], *, allowed: tuple[str, ...]) -> ProviderFinding:
    """Spec: Discovery 3 (id_token_signing_alg_values_supported)."""
    offered = _find_string_list(members, "id_token_signing_alg_values_supported") or ()
    usable = list_usable_algs(members, allowed)
    if not usable:
        text = f"offered: {', '.join(offered) or 'none'}; allowed: {', '.join(allowed)}"
        return _failure("algorithms", Code.ALG_UNSUPPORTED, text, find_remedy(Code.ALG_UNSUPPORTED))
    return _ok("algorithms", f"ID Tokens: {', '.join(usable)}")


def check_encryption(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> Iterator[ProviderFinding]:
    """Report the declared encryption of ID Tokens and UserInfo. Spec: Discovery 3."""
    kinds = {
        "id_token": declaration.id_token_encryption,
        "userinfo": declaration.userinfo_encryption,
    }
    for kind, encryption in kinds.items():
        if not encryption.algs:
            continue
        unusable = []
        for parameter, declared in (("alg", encryption.algs), ("enc", encryption.encs)):
            offered = (
                _find_string_list(members, f"{kind}_encryption_{parameter}_values_supported") or ()
            )
            if not set(declared) & set(offered):
                unusable.append(
                    f"{parameter} offered: {', '.join(offered) or 'none'}, declared: "
                    f"{', '.join(declared)}"
                )
        if unusable:
            remedy = (
                f"Declare an offered {kind}_encrypted_response_alg and _enc, or ask the provider."
            )
            yield _failure(
                "encryption", "encryption_unsupported", f"{kind}: {'; '.join(unusable)}", remedy
            )
        else:
            yield _ok("encryption", f"{kind}: {', '.join(encryption.algs)}")


def check_keys(response: TransportResponse, *, algs: tuple[str, ...]) -> Iterator[ProviderFinding]:
    """Check that each algorithm has one key per kid. algs: offered and allowed. Spec: Core 10.1.1;
    RFC 7517 5.
    """
    try:
        keys = process_jwks_response(response)
    except (MetadataError, TransportError) as error:
        if isinstance(error, TransportError):
            remedy = find_remedy(error.code)
        else:
            remedy = "The provider must fix it."

        yield _failure("keys", error.code, "jwks_uri returns no key set", remedy)
        return
    yield from check_key_set(keys, algs=algs)


def check_key_set(key_set: JSONWebKeySet, *, algs: tuple[str, ...]) -> Iterator[ProviderFinding]:
    """Check the keys themselves, as above."""
    keys = key_set.keys
    kids_by_alg = {}
    for alg in algs:
        kids_by_alg[alg] = [key.kid for key in keys if key.can_verify(alg)]
    algs_without_key = []
    for alg, kids in kids_by_alg.items():
        if not kids:
            algs_without_key.append(alg)
    if len(algs_without_key) == len(algs):
        text = f"none of {len(keys)} keys is usable for {', '.join(algs) or 'an allowed algorithm'}"
        remedy = (
            "The provider must publish a key for it: RSA of 2048 bits "
            "or more, P-256, P-384, P-521, or Ed25519."
        )
        yield _failure("keys", Code.KEY_NOT_FOUND, text, remedy)
        return
    if algs_without_key:
        text = (
            f"no key is usable for {', '.join(algs_without_key)}: "
            "ID Tokens signed with it are refused"
        )
        yield _warning(
            "keys", Code.KEY_NOT_FOUND, text, "Register the client with another algorithm."
        )
    ambiguous_algs = []
    for alg, kids in kids_by_alg.items():
        if len(set(kids)) < len(kids):
            ambiguous_algs.append(alg)
    if ambiguous_algs:
        text = (
            f"several keys for {', '.join(ambiguous_algs)} have the "
            "same kid, or none: the key is ambiguous"
        )
        yield _failure(
            "keys", Code.KEY_NOT_FOUND, text, "The provider must give each key a different kid."
        )
    if not algs_without_key and not ambiguous_algs:
        yield _ok("keys", "; ".join(f"{alg}: {len(kids)}" for alg, kids in kids_by_alg.items()))


def check_pairwise(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> ProviderFinding:
    """Spec: Discovery 3, Core 8. NOT checked: how this client is registered, which the metadata
    does not show.
    """
    is_offered = "pairwise" in (_find_string_list(members, "subject_types_supported") or ())
    if declaration.subject_type == "public":
        if is_offered:
            remedy = "Declare pairwise, and register the client so."
        else:
            remedy = "Ask the provider for it."
        return _warning("pairwise", "django_phi_oidc.W001", "public subjects are declared", remedy)
    if not is_offered:
        return _failure(
            "pairwise",
            Code.PAIRWISE_UNSUPPORTED,
            "not offered",
            find_remedy(Code.PAIRWISE_UNSUPPORTED),
        )
    return _ok("pairwise", "offered; the client must be registered with subject_type pairwise")


def check_pkce(members: Mapping[str, Any]) -> ProviderFinding:
    """The portal always sends S256. Spec: RFC 7636 4.3, RFC 8414 2."""
    methods = _find_string_list(members, "code_challenge_methods_supported")
    if methods is None:
        return _warning(
            "pkce",
            "pkce_untold",
            "the metadata does not say",
            "Ask the provider whether it checks S256.",
        )
    if "S256" not in methods:
        text = f"S256 is not among {', '.join(methods) or 'none'}"
        return _failure("pkce", "pkce_unsupported", text, "Ask the provider for S256 (RFC 7636).")
    return _ok("pkce", "S256")


def check_par(members: Mapping[str, Any], *, declaration: ProviderDeclaration) -> ProviderFinding:
    """Spec: RFC 9126 5."""
    is_offered = isinstance(members.get("pushed_authorization_request_endpoint"), str)
    if declaration.par == "require" and not is_offered:
        return _failure(
            "par",
            Code.PAR_UNSUPPORTED,
            "required, but not offered",
            "Ask the provider, or declare auto.",
        )
    if declaration.par == "never":
        if members.get("require_pushed_authorization_requests") is True:
            text = "declared never, but the provider requires it"
            return _failure("par", Code.PAR_UNSUPPORTED, text, "Declare auto.")
        return _warning("par", "django_phi_oidc.W013", "requests are never pushed", "Declare auto.")
    return _ok(
        "par",
        "requests are pushed"
        if is_offered
        else "not offered; requests are sent through the browser",
    )


def check_signed_requests(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> Iterator[ProviderFinding]:
    """Spec: Discovery 3 (request_object_signing_alg_values_supported); RFC 9101 10.5."""
    alg = declaration.request_object_signing_alg
    if not alg:
        if members.get("require_signed_request_object") is True:
            text = "the provider requires signed requests"
            yield _failure(
                "request", "request_object_required", text, "Declare request_object_signing_alg."
            )
        return
    offered = _find_string_list(members, "request_object_signing_alg_values_supported") or ()
    if alg in offered:
        yield _ok("request", f"signed with {alg}")
    else:
        text = (
            f"requests are signed with {alg}, but {', '.join(offered) or 'no algorithm'} is offered"
        )
        yield _failure(
            "request",
            "request_object_unsupported",
            text,
            "Declare an offered request_object_signing_alg.",
        )


def check_proof_of_possession(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> Iterator[ProviderFinding]:
    """Check that the provider accepts DPoP proofs with ES256. NOT checked: whether it requires them
    of this client.

    Spec: RFC 9449 5.1.
    """
    is_offered = CLIENT_PROOF_ALG in (
        _find_string_list(members, "dpop_signing_alg_values_supported") or ()
    )
    if declaration.dpop == "require" and not is_offered:
        remedy = find_remedy(Code.DPOP_UNSUPPORTED)
        yield _failure(
            "dpop",
            Code.DPOP_UNSUPPORTED,
            f"required, but {CLIENT_PROOF_ALG} is not offered",
            remedy,
        )
    elif is_offered and declaration.dpop == "never":
        yield _ok(
            "dpop",
            "offered, but not used: declare dpop to bind the tokens to a key of each session",
        )
    elif is_offered:
        yield _ok("dpop", "tokens are bound to a key of each session")


def check_client_authentication(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> ProviderFinding:
    """Spec: Discovery 3 (without a list, only client_secret_basic is offered)."""
    method = declaration.token_endpoint_auth_method
    offered = _find_string_list(members, "token_endpoint_auth_methods_supported")
    if method not in (("client_secret_basic",) if offered is None else offered):
        text = f"{method} is not among {', '.join(offered or ()) or 'the offered methods'}"
        return _failure(
            "client",
            "client_auth_unsupported",
            text,
            "Declare an offered token_endpoint_auth_method.",
        )
    algs = _find_string_list(members, "token_endpoint_auth_signing_alg_values_supported")
    if method == "private_key_jwt" and algs is not None:
        alg = declaration.get_assertion_alg(declaration.list_keys("sig")[0])
        if alg not in algs:
            text = f"assertions are signed with {alg}, but {', '.join(algs)} are accepted"
            return _failure(
                "client", "client_auth_unsupported", text, "Declare an accepted key or algorithm."
            )
    return _ok("client", method)


def check_revocation(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> ProviderFinding:
    """Spec: RFC 7009, RFC 8414 2."""
    if not isinstance(members.get("revocation_endpoint"), str):
        if declaration.revocation == "best_effort":
            text = "no endpoint: tokens stay valid after logout"
            return _warning(
                "revocation", "django_phi_oidc.W002", text, "Ask the provider for RFC 7009."
            )
        remedy = find_remedy(Code.REVOCATION_UNSUPPORTED)
        return _failure("revocation", Code.REVOCATION_UNSUPPORTED, "no endpoint", remedy)
    methods = _find_string_list(members, "revocation_endpoint_auth_methods_supported")
    if methods is not None and declaration.token_endpoint_auth_method not in methods:
        text = f"{declaration.token_endpoint_auth_method} is not among {', '.join(methods)}"
        return _failure(
            "revocation",
            "client_auth_unsupported",
            text,
            "Declare a method that both endpoints accept.",
        )
    return _ok("revocation", "offered")


def check_introspection(members: Mapping[str, Any]) -> ProviderFinding:
    """Check for the introspection endpoint, if `API` declares introspection. Spec: RFC 7662, RFC
    8414 2.
    """
    if not isinstance(members.get("introspection_endpoint"), str):
        remedy = "Ask the provider for RFC 7662, or declare the method jwt."
        text = "no introspection endpoint, so every token is refused"
        return _failure("api", APICode.INTROSPECTION_FAILED, text, remedy)
    return _ok("api", "introspection is offered")


def check_client_is_known(response: TransportResponse) -> ProviderFinding:
    """Check the response to the revocation of a random token: is the client known? Spec: RFC 7009
    2.2.
    """
    outcome = process_revocation_response(response)
    text = f"the revocation endpoint returned {response.status}"
    if outcome.result == "done":
        return _ok("client", "the provider knows the client: it accepted a revocation")
    if outcome.result == "retry_slowly":
        return _failure("client", "invalid_client", text, find_remedy("invalid_client"))
    return _warning(
        "client", "revocation_failed", text, "It must return 200 for unknown tokens too."
    )


def check_logout(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> Iterator[ProviderFinding]:
    """Spec: RP-Initiated Logout 2, 2.1; Back-Channel Logout 2.1."""
    yield _check_rp_initiated_logout(members, declaration=declaration)
    if members.get("backchannel_logout_supported") is not True:
        text = (
            "no back-channel logout: after logout elsewhere, "
            "users stay signed in here until a timeout"
        )
        yield _warning(
            "logout", "backchannel_absent", text, "Ask the provider for Back-Channel Logout."
        )
    elif members.get("backchannel_logout_session_supported") is not True:
        text = "back-channel logout without sid: a logout ends all sessions of the user"
        yield _warning(
            "logout", "backchannel_without_sid", text, "Ask the provider for sid in logout tokens."
        )
    else:
        yield _ok("logout", "back-channel logout per session: register oidc/backchannel-logout/")


def _check_rp_initiated_logout(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> ProviderFinding:
    if not isinstance(members.get("end_session_endpoint"), str):
        text = "no end_session_endpoint: after logout, users stay signed in at the provider"
        return _warning(
            "logout", "end_session_absent", text, "Ask the provider for RP-initiated logout."
        )
    known = find_known_provider(members)
    policy = declaration.id_token_hint

    if known:
        parameter = known.required_end_session_parameter
    else:
        parameter = ""

    if known and parameter and parameter not in dict(declaration.end_session_parameters):
        text = f"{known.name} requires {parameter}: without it a logout ends on its error page"
        remedy = f"Declare end_session_parameters with {parameter}, and id_token_hint: never."
        return _warning("logout", "end_session_parameter_missing", text, remedy)
    if policy == "always":
        return _ok(
            "logout", "the session at the provider ends too: the ID Token is sent as the hint"
        )
    if known and known.requires_id_token_hint:
        if policy == "never":
            condition = ""
        else:
            condition = " if it contains claims about the person"

        text = (
            f"{known.name} requires id_token_hint, but the ID Token "
            f"is not sent{condition}: its session stays"
        )
        remedy = (
            "Declare id_token_hint: always, or ask the provider "
            "to keep the claims out of ID Tokens."
        )
        return _warning("logout", "id_token_hint_required", text, remedy)
    if policy == "never" or parameter:
        return _ok(
            "logout",
            "the browser is sent to the provider without a hint: sign out once to see what it does",
        )

    if known:
        name = known.name
    else:
        name = "the provider"

    text = (
        "ends the session there too, if the ID Token contains no claims "
        "about the person; else a page asks the user"
    )
    return _ok("logout", f"{name} {text}")


def check_response_issuer(members: Mapping[str, Any], *, is_only_provider: bool) -> ProviderFinding:
    """Check the protection against mix-up, which needs a second declared provider. Spec: RFC 9207
    3.
    """
    if members.get("authorization_response_iss_parameter_supported") is True:
        return _ok("mix-up", "responses name their issuer")
    if is_only_provider:
        return _ok("mix-up", "responses do not name their issuer; there is no other provider")
    text = "responses do not name their issuer, and there are other providers"
    return _warning("mix-up", Code.ISS_MISSING, text, "Ask the provider for RFC 9207.")


def check_requested_claims(
    members: Mapping[str, Any],
    *,
    declaration: ProviderDeclaration,
    claims: Mapping[str, ClaimDeclaration],
) -> ProviderFinding:
    """Check that the requested scopes and claims are listed; lists may be partial. Spec: Discovery
    3, Core 5.5.
    """
    if (
        declaration.claims_request != "scopes"
        and members.get("claims_parameter_supported") is not True
    ):
        text = "the claims parameter is not offered"
        return _warning(
            "claims", "claims_parameter_unsupported", text, "Declare claims_request: scopes."
        )
    scopes = _find_string_list(members, "scopes_supported")
    offered = _find_string_list(members, "claims_supported")

    transient: list[str] = []
    for source in account_sources:
        if source.is_declared(declaration):
            transient += source.claims

    request = build_claims_request(
        claims, provider_declaration=declaration, transient_claims=transient
    )
    missing = []
    for scope in request.scope.split():
        if scopes and scope not in scopes:
            missing.append(scope)
    names = dict.fromkeys([*claims, *transient])
    for name in names:
        if offered and name not in offered and name not in PROTOCOL_CLAIMS:
            missing.append(name)
    if missing:
        text = f"the metadata does not list the scope or claim {', '.join(missing)}"
        return _warning(
            "claims", "claim_untold", text, "Correct it in CLAIMS, or register the client for it."
        )
    return _ok(
        "claims",
        "all requested claims are offered" if scopes or offered else "the metadata does not say",
    )


def check_resource(
    declaration: ProviderDeclaration, *, wants_claims: bool
) -> Iterator[ProviderFinding]:
    """Report the API that access tokens are for. NOT checked: whether it is registered. Spec: RFC
    8707 2.
    """
    if declaration.resource:
        if wants_claims:
            hint = "; UserInfo may refuse such a token"
        else:
            hint = ""
        yield _ok("resource", f"access tokens are for {declaration.resource}{hint}")


def check_reauthentication(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> Iterator[ProviderFinding]:
    """Warn if the metadata do not offer what a sign-in after a timeout requires. Spec: Discovery 3;
    Core 3.1.2.1.
    """
    if declaration.reauthentication != "verify":
        text = "after a timeout, single sign-on may suffice to sign in again"
        yield _warning(
            "assurance",
            "django_phi_oidc.W034",
            text,
            "Declare verify, if the provider sends auth_time.",
        )
        return
    claims = _find_string_list(members, "claims_supported")
    if claims is not None and "auth_time" not in claims:
        text = "auth_time is not listed; without it, a sign-in after a timeout is refused"
        yield _warning(
            "assurance",
            Code.AUTH_TIME_MISSING,
            text,
            "Ask the provider, or declare reauthentication.",
        )


def check_access_token_lifetime(alert_count: int | None, *, limit: timedelta) -> ProviderFinding:
    """alert_count: recent alerts about long lifetimes; None: the audit log could not be read."""
    text = f"only visible at a sign-in; more than {limit} is refused"
    if alert_count:
        text = (
            f"{alert_count} sign-ins in 30 days had access tokens with "
            "a lifetime above an hour, or without one"
        )
        return _warning(
            "lifetimes", Code.ACCESS_TOKEN_LIFETIME, text, "Ask the provider for ten minutes."
        )
    return _ok("lifetimes", text if alert_count is None else f"{text}; no alert in 30 days")


def check_token_type(refusal_count: int) -> Iterator[ProviderFinding]:
    """refusal_count: recent sign-ins that were refused for their token_type or DPoP proof (RFC 9449
    5, 8).
    """
    if refusal_count:
        text = (
            f"{refusal_count} sign-ins in 30 days were refused for the "
            "type of their tokens, or for their proof"
        )
        yield _warning("dpop", "dpop_required", text, find_remedy(Code.TOKEN_TYPE_UNSUPPORTED))


def check_audit_log(deviations: Sequence[str]) -> Iterator[ProviderFinding]:
    """Report how the triggers of the audit log differ from what the migrations made."""
    for text in deviations:
        remedy = "manage.py phi_oidc audit repair, as the owner of the tables; then audit verify."
        yield _failure("audit log", "protection_altered", text, remedy)


def check_clock(
    headers: Mapping[str, str], *, requested_at: datetime, received_at: datetime, leeway: timedelta
) -> ProviderFinding:
    """Compare the Date header, which has whole seconds, with the local time. Spec: RFC 9110 6.6.1,
    RFC 9111 5.1.
    """
    try:
        sent = parsedate_to_datetime(headers.get("date", ""))
        # Dates are in GMT; one without a zone is parsed as naive.
        sent = sent.replace(tzinfo=sent.tzinfo or UTC) + timedelta(
            seconds=int(headers.get("age", "0")[:9])
        )
        ahead = sent - received_at
        behind = requested_at - (sent + timedelta(seconds=1))
    except (ValueError, OverflowError):
        return _warning(
            "clock",
            "clock_untold",
            "the response has no Date",
            "Ask the provider, or compare by hand.",
        )
    skew = max(ahead, behind, timedelta(0))
    if skew:
        text = f"{skew.total_seconds():.0f} s {'ahead' if ahead > behind else 'behind'}"
    else:
        text = "no difference"

    if skew > leeway:
        text = f"{text}; {leeway.total_seconds():.0f} s are allowed"
        return _failure(
            "clock",
            Code.IAT_INVALID,
            text,
            "Set both clocks by NTP. Tokens are refused until then.",
        )
    if skew > leeway / 2:
        return _warning("clock", Code.IAT_INVALID, text, "Set both clocks by NTP.")
    return _ok("clock", text)


def _is_valid_endpoint(members: Mapping[str, Any], name: str) -> bool:
    value = members.get(name)
    if name in members:
        return isinstance(value, str) and bool(value)
    return name in OPTIONAL_ENDPOINTS


def _find_string_list(members: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """Return the strings of that member; None if it is missing or not a list of strings."""
    value = members.get(name)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return None
