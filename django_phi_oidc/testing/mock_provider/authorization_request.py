"""The validation of authorization requests. Spec: OIDC Core 3.1.2.1, 5.5; RFC 7636 4.3."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .claims import SCOPES
from .messages import OAuthError, ParameterPairs
from .registrations import Client
from .state import ProviderState

_CODE_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_PROMPTS = {"none", "login", "consent", "select_account"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedAuthorizationRequest:
    """The parameters of a request that passed all checks."""

    scope: tuple[str, ...]
    nonce: str = field(repr=False)
    code_challenge: str = field(repr=False)
    prompt: frozenset[str]
    max_age: int | None
    """Seconds."""
    acr_values: tuple[str, ...]
    essential_acr_values: tuple[str, ...]
    allowed_subjects: tuple[str, ...]
    """The only users who may sign in, if not empty. Spec: OIDC Core 3.1.2.2, 5.5.1."""
    claims: Mapping[str, Mapping[str, Any]]
    vtr: tuple[str, ...]
    """Acceptable vectors of trust. Spec: RFC 8485 4."""
    resource: str
    """Spec: RFC 8707 2.1."""

    def accepts_vector(self, vot: str) -> bool:
        """Return whether vot has all components of a requested vector, or none is requested."""
        if not self.vtr:
            return True
        components = set(vot.split("."))
        return any(components.issuperset(vector.split(".")) for vector in self.vtr)


class UntrustedRedirectURI(Exception):
    """The redirect URI is not known to be the client's. Do not send anything to it, not even an
    error.
    """


def validate_redirect_uri(state: ProviderState, pairs: ParameterPairs) -> tuple[Client, str]:
    """Return the client and its redirect URI, which must exactly equal a registered one.

    Raises: UntrustedRedirectURI. Spec: OIDC Core 3.1.2.1, RFC 9700 4.1.3.
    """
    counts = Counter(name for name, _ in pairs)
    if counts["client_id"] != 1 or counts["redirect_uri"] != 1:
        raise UntrustedRedirectURI("client_id and redirect_uri are each required exactly once.")
    parameters = dict(pairs)
    client = state.clients.get(parameters["client_id"])
    if client is None:
        raise UntrustedRedirectURI("The client is not registered.")
    if parameters["redirect_uri"] not in client.redirect_uris:
        raise UntrustedRedirectURI("This redirect URI is not registered for the client.")
    return client, parameters["redirect_uri"]


def validate_authorization_request(
    parameters: Mapping[str, str],
    client: Client,
    *,
    extra_scopes: Iterable[str] = (),
    resources: Collection[str] = (),
) -> ValidatedAuthorizationRequest:
    """Return the validated request. extra_scopes: scopes in addition to those of OpenID Connect.
    resources: the APIs.

    Raises: OAuthError with the error code for the client.
    """
    _validate_parameters(parameters)
    if client.require_pkce or "code_challenge" in parameters:
        _validate_code_challenge(parameters)
    requested_scope = parameters.get("scope", "").split()
    scope = [value for value in (*SCOPES, *extra_scopes) if value in requested_scope]
    if "openid" not in scope:
        raise OAuthError("invalid_scope", "The scope does not contain openid.")
    prompt = frozenset(parameters.get("prompt", "").split())
    if not prompt <= _PROMPTS or ("none" in prompt and len(prompt) > 1):
        raise OAuthError("invalid_request", "This prompt is not supported.")
    if "consent" not in prompt:
        # Offline access needs the user's consent. Spec: OIDC Core 11.
        scope = [value for value in scope if value != "offline_access"]
    claims = _parse_claims(parameters.get("claims", ""))
    essential_acr_values: tuple[str, ...] = ()
    if _find_id_token_claim(claims, "acr").get("essential"):
        essential_acr_values = _list_requested_values(claims, "acr")
    return ValidatedAuthorizationRequest(
        scope=tuple(scope),
        nonce=parameters.get("nonce", ""),
        code_challenge=parameters.get("code_challenge", ""),
        prompt=prompt,
        max_age=_parse_max_age(parameters.get("max_age", "")),
        acr_values=tuple(parameters.get("acr_values", "").split()),
        essential_acr_values=essential_acr_values,
        allowed_subjects=_list_requested_values(claims, "sub"),
        claims=claims,
        vtr=_parse_vtr(parameters.get("vtr", "")),
        resource=_parse_resource(parameters.get("resource", ""), resources),
    )


def _validate_parameters(parameters: Mapping[str, str]) -> None:
    for name in ("request", "request_uri"):
        if name in parameters:
            raise OAuthError(f"{name}_not_supported", f"The parameter {name} is not supported.")
    if not parameters.get("response_type"):
        raise OAuthError("invalid_request", "response_type is missing.")
    if parameters["response_type"] != "code":
        raise OAuthError("unsupported_response_type", "The only response type is code.")
    if parameters.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "The only response mode is query.")


def _validate_code_challenge(parameters: Mapping[str, str]) -> None:
    challenge = parameters.get("code_challenge", "")
    if parameters.get("code_challenge_method") != "S256" or not _CODE_CHALLENGE.fullmatch(
        challenge
    ):
        raise OAuthError("invalid_request", "PKCE with S256 is required.")


def _parse_max_age(value: str) -> int | None:
    if not value:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise OAuthError("invalid_request", "max_age must be a number of seconds.")
    return int(value)


def _parse_vtr(value: str) -> tuple[str, ...]:
    try:
        if value:
            vectors = json.loads(value)
        else:
            vectors = []
    except (ValueError, RecursionError) as error:
        raise OAuthError("invalid_request", "vtr is not JSON.") from error
    if not isinstance(vectors, list) or not all(_is_vector(vector) for vector in vectors):
        raise OAuthError("invalid_request", "vtr is not an array of vectors.")
    return tuple(vectors)


def _is_vector(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _parse_resource(value: str, resources: Collection[str]) -> str:
    if value and value not in resources:
        raise OAuthError("invalid_target", "This resource is unknown.")
    return value


def _parse_claims(value: str) -> Mapping[str, Mapping[str, Any]]:
    if not value:
        return {}
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise OAuthError("invalid_request", "claims is not JSON.") from error
    if not isinstance(parsed, dict):
        raise OAuthError("invalid_request", "claims is not a JSON object.")
    members = {}
    for name in ("id_token", "userinfo"):
        if name in parsed:
            members[name] = parsed[name]
    if not all(_has_claim_requests(member) for member in members.values()):
        raise OAuthError("invalid_request", "claims has members of the wrong type.")
    return members


def _has_claim_requests(member: object) -> bool:
    """Return whether each value of the member requests a claim: an object or null. Spec: OIDC Core
    5.5.
    """
    if not isinstance(member, dict):
        return False
    return all(request is None or isinstance(request, dict) for request in member.values())


def _find_id_token_claim(claims: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return claims.get("id_token", {}).get(name) or {}


def _list_requested_values(claims: Mapping[str, Mapping[str, Any]], name: str) -> tuple[str, ...]:
    request = _find_id_token_claim(claims, name)
    default_values = []
    if "value" in request:
        default_values = [request["value"]]
    values = request.get("values", default_values)
    if isinstance(values, list):
        requested_values = []
        for value in values:
            if isinstance(value, str):
                requested_values.append(value)
        return tuple(requested_values)
    return ()
