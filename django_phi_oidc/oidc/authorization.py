"""R3 and R4: the authorization request and the browser's way back. Spec: Core 3.1.2, RFC 6749 4.1, 7636, 9207."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from ..config.providers import ProviderDeclaration
from ..errors import (
    CodeMissing,
    IssMismatch,
    IssMissing,
    ParameterRepeated,
    ProviderError,
    StateMissing,
    StateUnknown,
)
from .jose import encode_b64url
from .metadata import ProviderMetadata

CallbackParameters = Mapping[str, Sequence[str]]

OFFLINE_ACCESS = "offline_access"
SINGLE_VALUE_PARAMETERS = ("code", "state", "iss", "error")

AUTHORIZATION_ERROR_CODES = frozenset(
    {
        # RFC 6749 4.1.2.1
        "invalid_request",
        "unauthorized_client",
        "access_denied",
        "unsupported_response_type",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
        # OIDC Core 3.1.2.6
        "interaction_required",
        "login_required",
        "account_selection_required",
        "consent_required",
        "invalid_request_uri",
        "invalid_request_object",
        "request_not_supported",
        "request_uri_not_supported",
        "registration_not_supported",
        # OIDC Core Unmet Authentication Requirements 1.0 2
        "unmet_authentication_requirements",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AuthorizationRequest:
    """What one sign-in sends and remembers. Its repr shows nothing of it."""

    state: str
    nonce: str
    code_verifier: str
    redirect_uri: str
    prompts_login: bool = False
    """The person is to authenticate anew, whoever is signed in at the OP. Spec: Core 3.1.2.1 (prompt)."""

    def __repr__(self) -> str:
        return "AuthorizationRequest(…)"


def build_authorization_parameters(
    *,
    metadata: ProviderMetadata,
    declaration: ProviderDeclaration,
    request: AuthorizationRequest,
    scope: str,
    claims: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return the parameters of the authorization request, by the browser or pushed: the code flow with PKCE S256.

    scope: space-separated. claims: the claims parameter, sent when not None. Where offline_access is in scope and no
    prompt is declared, consent is asked for, unless the OP says that it knows no such prompt. A login that is prompted
    for comes beside all that, and in place of `none`.

    Spec: Core 3.1.2.1, 5.5, 11; RFC 7636 4.3.
    """
    parameters = {
        "response_type": "code",
        "client_id": declaration.client_id,
        "redirect_uri": request.redirect_uri,
        "scope": scope,
        "state": request.state,
        "nonce": request.nonce,
        "code_challenge": compute_code_challenge(request.code_verifier),
        "code_challenge_method": "S256",
    }
    if declaration.acr_values:
        parameters["acr_values"] = " ".join(declaration.acr_values)
    if declaration.max_age is not None:
        parameters["max_age"] = str(declaration.max_age)
    further = dict(declaration.authorization_parameters)
    prompts = further.pop("prompt", "").split()
    known = metadata.prompt_values_supported or ("consent",)
    if not prompts and OFFLINE_ACCESS in scope.split() and "consent" in known:
        prompts = ["consent"]
    if request.prompts_login:
        prompts = ["login", *(prompt for prompt in prompts if prompt not in ("login", "none"))]
    if prompts:
        parameters["prompt"] = " ".join(prompts)
    parameters |= further
    if claims is not None:
        parameters["claims"] = json.dumps(claims, separators=(",", ":"))
    return parameters


def build_authorization_url(*, metadata: ProviderMetadata, parameters: Mapping[str, str]) -> str:
    """Return where the browser goes: the OP's endpoint, a query of its own kept, with parameters added to it.

    Spec: Core 3.1.2.1; RFC 6749 3.1; RFC 9126 4.
    """
    endpoint = metadata.authorization_endpoint
    separator = "" if endpoint.endswith(("?", "&")) else "&" if "?" in endpoint else "?"
    return f"{endpoint}{separator}{urlencode(parameters, quote_via=quote)}"


def compute_code_challenge(code_verifier: str) -> str:
    """Return the S256 challenge of verifier. Spec: RFC 7636 4.2."""
    return encode_b64url(hashlib.sha256(code_verifier.encode("ascii")).digest())


def get_state(parameters: CallbackParameters) -> str:
    """Return the callback's state, with no parameter that matters repeated.

    Raises: ParameterRepeated, StateMissing; StateUnknown for a state that is not ASCII, which none of ours is.
    Spec: RFC 6749 4.1.2, 10.12.
    """
    validate_single_values(parameters)
    state = _get_single_value(parameters, "state")
    if not state:
        raise StateMissing
    if not state.isascii():
        raise StateUnknown
    return state


def process_authorization_response(parameters: CallbackParameters, *, metadata: ProviderMetadata) -> str:
    """Return the code that the OP sent by the browser. NOT checked: the state, which read_state gives to its keeper.

    Order: repeated parameters, iss, error, code: an error is believed only of the OP that iss names.

    Raises: ParameterRepeated, IssMismatch, IssMissing, ProviderError, CodeMissing.
    Spec: RFC 6749 4.1.2; Core 3.1.2.5 to 3.1.2.7; RFC 9207 2.4.
    """
    validate_single_values(parameters)
    validate_response_iss(parameters, metadata=metadata)
    raise_for_error(parameters)
    return get_code(parameters)


def validate_single_values(parameters: CallbackParameters) -> None:
    """`parameter_repeated`: code, state, iss and error stand in the response at most once. Spec: RFC 6749 3.1."""
    if any(len(parameters.get(name, ())) > 1 for name in SINGLE_VALUE_PARAMETERS):
        raise ParameterRepeated


def validate_response_iss(parameters: CallbackParameters, *, metadata: ProviderMetadata) -> None:
    """`iss_mismatch`, `iss_missing`: iss is the issuer, byte for byte, and is there when the OP says that it sends it.

    An empty iss is a mismatch. Spec: RFC 9207 2.4.
    """
    values = parameters.get("iss", ())
    if values and values[0] != metadata.issuer:
        raise IssMismatch
    if not values and metadata.authorization_response_iss_parameter_supported:
        raise IssMissing


def raise_for_error(parameters: CallbackParameters) -> None:
    """`provider_error`: the response is no error; if it is, the code is kept out of the registered list, or `other`.

    error_description and error_uri are not read. Spec: RFC 6749 4.1.2.1, Core 3.1.2.6.
    """
    error = _get_single_value(parameters, "error")
    if error:
        raise ProviderError(error if error in AUTHORIZATION_ERROR_CODES else "other")


def get_code(parameters: CallbackParameters) -> str:
    """`code_missing`: the response has a code, of visible ASCII characters. Spec: RFC 6749 4.1.2, A.11."""
    code = _get_single_value(parameters, "code")
    if not code or not code.isascii() or not code.isprintable():
        raise CodeMissing
    return code


def _get_single_value(parameters: CallbackParameters, name: str) -> str:
    """A parameter without a value counts as left out. Spec: RFC 6749 3.1."""
    values = parameters.get(name, ())
    return values[0] if values else ""
