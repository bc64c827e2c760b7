"""The authorization request and its response (R3, R4). Spec: Core 3.1.2, RFC 6749 4.1, 7636,
9207.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.providers import ProviderDeclaration
from ..errors import CallbackError, Code, ProviderError
from ..http.transport import add_query
from .error_codes import get_error_code
from .jose import encode_b64url
from .metadata import ProviderMetadata
from .vectors_of_trust import format_vector_request

CallbackParameters = Mapping[str, Sequence[str]]

OFFLINE_ACCESS = "offline_access"
SINGLE_VALUE_PARAMETERS = ("code", "state", "iss", "error")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AuthorizationRequest:
    """The values of one sign-in that are sent and stored. Its repr shows none of them."""

    state: str
    nonce: str
    code_verifier: str
    redirect_uri: str
    dpop_jkt: str = ""
    """The thumbprint of the key that the code must be bound to. Spec: RFC 9449 10."""
    prompts_login: bool = False
    """The person must authenticate again, even with a session at the provider. Spec: Core 3.1.2.1
    (prompt).
    """

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
    """Return the parameters of an authorization request, by the browser or pushed: code flow with
    PKCE S256.

    scope: space-separated. claims: the claims parameter, sent if not None. `prompt=consent` is
    added for offline_access if no prompt is declared, unless the provider does not support it.
    `prompt=login` is added if the request prompts for a login, and replaces `none`. Spec: Core
    3.1.2.1, 5.5, 11; RFC 7636 4.3; RFC 8485 4; RFC 8707 2.1;
    RFC 9449 10.
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
    if request.dpop_jkt:
        parameters["dpop_jkt"] = request.dpop_jkt
    if declaration.acr_values:
        parameters["acr_values"] = " ".join(declaration.acr_values)
    if declaration.vtr:
        parameters["vtr"] = format_vector_request(declaration.vtr)
    if declaration.max_age is not None:
        parameters["max_age"] = str(declaration.max_age)
    if declaration.resource:
        parameters["resource"] = declaration.resource
    further = dict(declaration.authorization_parameters)
    prompts = further.pop("prompt", "").split()
    supported = metadata.prompt_values_supported or ("consent",)
    if not prompts and OFFLINE_ACCESS in scope.split() and "consent" in supported:
        prompts = ["consent"]
    if request.prompts_login:
        # The rules of SPID and CIE have `consent login` in this order only.
        prompts = [*(prompt for prompt in prompts if prompt not in ("login", "none")), "login"]
    if prompts:
        parameters["prompt"] = " ".join(prompts)
    parameters |= further
    if claims is not None:
        parameters["claims"] = json.dumps(claims, separators=(",", ":"))
    return parameters


def build_authorization_url(*, metadata: ProviderMetadata, parameters: Mapping[str, str]) -> str:
    """Return the URL to redirect to: the endpoint, whose own query is kept, with parameters.

    Spec: Core 3.1.2.1; RFC 6749 3.1; RFC 9126 4.
    """
    return add_query(metadata.authorization_endpoint, parameters)


def compute_code_challenge(code_verifier: str) -> str:
    """Return the S256 challenge. Spec: RFC 7636 4.2."""
    return encode_b64url(hashlib.sha256(code_verifier.encode("ascii")).digest())


def get_state(parameters: CallbackParameters) -> str:
    """Return the state of the callback.

    A state that is not ASCII is never issued. Raises: CallbackError. Spec: RFC 6749 4.1.2, 10.12.
    """
    validate_single_values(parameters)
    state = _get_single_value(parameters, "state")
    if not state:
        raise CallbackError(Code.STATE_MISSING)
    if not state.isascii():
        raise CallbackError(Code.STATE_UNKNOWN)
    return state


def process_authorization_response(
    parameters: CallbackParameters, *, metadata: ProviderMetadata
) -> str:
    """Return the code. NOT checked: the state; get_state returns it to the caller.

    Order: repeated parameters, iss, error, code. The error is only trusted after the iss check.
    Raises: CallbackError. Spec: RFC 6749 4.1.2; Core 3.1.2.5 to 3.1.2.7; RFC 9207 2.4.
    """
    validate_single_values(parameters)
    validate_response_iss(parameters, metadata=metadata)
    raise_for_error(parameters)
    return get_code(parameters)


def validate_single_values(parameters: CallbackParameters) -> None:
    """`parameter_repeated`: code, state, iss and error occur at most once. Spec: RFC 6749 3.1."""
    if any(len(parameters.get(name, ())) > 1 for name in SINGLE_VALUE_PARAMETERS):
        raise CallbackError(Code.PARAMETER_REPEATED)


def validate_response_iss(parameters: CallbackParameters, *, metadata: ProviderMetadata) -> None:
    """`iss_mismatch`, `iss_missing`: iss is exactly the issuer of the metadata, and present if they
    advertise it.

    An empty iss is a mismatch. Spec: RFC 9207 2.4.
    """
    values = parameters.get("iss", ())
    if values and values[0] != (metadata.metadata_issuer or metadata.issuer):
        raise CallbackError(Code.ISS_MISMATCH)
    if not values and metadata.authorization_response_iss_parameter_supported:
        raise CallbackError(Code.ISS_MISSING)


def raise_for_error(parameters: CallbackParameters) -> None:
    """`provider_error`: the response is not an error. Unregistered error codes become `other`.

    error_description and error_uri are not read. Spec: RFC 6749 4.1.2.1, Core 3.1.2.6.
    """
    error = _get_single_value(parameters, "error")
    if error:
        raise ProviderError(get_error_code(error))


def get_code(parameters: CallbackParameters) -> str:
    """`code_missing`: the response has a code, of visible ASCII characters. Spec: RFC 6749 4.1.2,
    A.11.
    """
    code = _get_single_value(parameters, "code")
    if not code or not code.isascii() or not code.isprintable():
        raise CallbackError(Code.CODE_MISSING)
    return code


def _get_single_value(parameters: CallbackParameters, name: str) -> str:
    """A parameter without a value is treated as omitted. Spec: RFC 6749 3.1."""
    values = parameters.get(name, ())
    if values:
        return values[0]
    return ""
