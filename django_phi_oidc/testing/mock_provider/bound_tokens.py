"""Tokens that are bound to the key of a DPoP proof. Spec: RFC 9449 4.3, 5, 7, 8, 10."""

from ...contrib.common.api_errors import DPoPProofInvalid
from ...contrib.common.dpop_proofs import ACCEPTED_PROOF_ALGS, verify_proof
from .messages import NO_STORE_HEADERS, OAuthError, ReceivedRequest, Reply
from .state import Grant, ProviderState, Token


def find_proof_thumbprint(
    state: ProviderState, request: ReceivedRequest, *, access_token: str = "", bound_to: str = ""
) -> str:
    """Return the thumbprint of the key in the request's proof, which is valid once; empty without a
    proof.

    access_token, bound_to: at UserInfo, the token and the thumbprint of its key.
    Raises: OAuthError invalid_dpop_proof, or use_dpop_nonce.
    """
    proof = request.headers.get("dpop", "")
    if state.dpop == "off" or not proof:
        return ""
    try:
        verified = verify_proof(
            proof,
            method=request.method,
            url=f"{state.issuer}{request.path}",
            now=state.clock(),
            access_token=access_token,
            thumbprint=bound_to,
        )
    except DPoPProofInvalid as error:
        raise OAuthError("invalid_dpop_proof", error.rule) from error
    if state.dpop_nonce and verified.nonce != state.dpop_nonce:
        raise OAuthError(
            "use_dpop_nonce", "A nonce is required.", headers={"DPoP-Nonce": state.dpop_nonce}
        )
    with state.lock:
        if (verified.thumbprint, verified.jti) in state.used_proof_jtis:
            raise OAuthError("invalid_dpop_proof", "jti was used before.")
        state.used_proof_jtis.add((verified.thumbprint, verified.jti))
    return verified.thumbprint


def get_token_request_thumbprint(state: ProviderState, request: ReceivedRequest) -> str:
    """Return the thumbprint of the key that new tokens are bound to; empty for Bearer tokens.
    Raises: OAuthError.
    """
    thumbprint = find_proof_thumbprint(state, request)
    if state.dpop == "required" and not thumbprint:
        raise OAuthError("invalid_dpop_proof", "A DPoP proof is required.")
    return thumbprint


def validate_binding(grant: Grant, thumbprint: str) -> None:
    """Refuse the proof of another key than that of the authorization request or of the first
    tokens.

    Spec: RFC 9449 5 (refresh tokens), 10.
    """
    if grant.dpop_jkt and thumbprint != grant.dpop_jkt:
        raise OAuthError("invalid_grant", "The grant is bound to another key.")


def find_proof_refusal(
    state: ProviderState, request: ReceivedRequest, token: Token
) -> Reply | None:
    """Return the refusal of a request to UserInfo without a proof of the token's key. Spec: RFC
    9449 7.1, 9.
    """
    try:
        if find_proof_thumbprint(state, request, access_token=token.value, bound_to=token.dpop_jkt):
            return None
        raise OAuthError("invalid_dpop_proof", "A DPoP proof is required.")
    except OAuthError as error:
        challenge = f'DPoP algs="{" ".join(ACCEPTED_PROOF_ALGS)}", error="{error.error}"'
        headers = {**NO_STORE_HEADERS, **error.headers, "WWW-Authenticate": challenge}
        return Reply(status=401, headers=headers, body=b"")
