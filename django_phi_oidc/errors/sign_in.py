"""Why a sign-in is refused, by the rules R1 to R7."""

from .base import PhiOidcError


class SignInRefused(PhiOidcError, code="sign_in_refused"):
    """The sign-in was refused."""


class TransportError(SignInRefused, provider_fault=True):
    """The exchange with the OP did not take place as it must."""


class TransportNotHTTPS(TransportError, code="transport_not_https"):
    """An endpoint is not https, and is not an allowed loopback address."""


class TransportRedirect(TransportError, code="transport_redirect"):
    """The OP answered a call with a redirect; none is followed."""


class TransportUnreachable(TransportError, code="transport_unreachable"):
    """The connection was refused or reset, or the name does not resolve."""


class TransportTooLarge(TransportError, code="transport_too_large"):
    """The body is over the limit; it was dropped while being read."""


class TransportEncoding(TransportError, code="transport_encoding"):
    """The body is encoded although identity was asked for."""


class TransportTimeout(TransportError, code="transport_timeout"):
    """The exchange passed its deadline."""


class TransportTLS(TransportError, code="transport_tls"):
    """The OP's certificate could not be verified."""


class MetadataError(SignInRefused):
    """The OP's metadata or keys can't be used."""


class IssuerMismatch(MetadataError, code="issuer_mismatch", provider_fault=True):
    """The metadata names another issuer (Discovery 4.3)."""


class MetadataInvalid(MetadataError, code="metadata_invalid", provider_fault=True):
    """The metadata or key set is not what Discovery 3 asks for."""


class PairwiseUnsupported(MetadataError, code="pairwise_unsupported"):
    """The OP does not offer pairwise subjects."""


class AlgUnsupported(MetadataError, code="alg_unsupported"):
    """The OP signs with none of the allowed algorithms."""


class RevocationUnsupported(MetadataError, code="revocation_unsupported"):
    """The OP has no revocation endpoint, and this provider requires one."""


class PARUnsupported(MetadataError, code="par_unsupported"):
    """The OP takes no pushed authorization requests, and this provider requires them, or the other way round."""


class KeyNotFound(MetadataError, code="key_not_found", provider_fault=True):
    """No published key fits the token (Core 10.1.1)."""

    def __init__(self, message: str = "", *, is_certain: bool = True) -> None:
        """is_certain: the OP was asked just now; else its key may be newer than what we have."""
        super().__init__(message)
        self.is_certain = is_certain


class PushedRequestError(SignInRefused):
    """The pushed authorization request was not accepted."""


class PARError(PushedRequestError, code="par_error"):
    """The pushed authorization request endpoint answered with an error (RFC 9126 2.3)."""

    def __init__(self, message: str = "", *, status: int) -> None:
        super().__init__(message)
        self.provider_fault = status >= 500


class PARResponseInvalid(PushedRequestError, code="par_response_invalid", provider_fault=True):
    """The answer to the pushed authorization request is not the JSON object of RFC 9126 2.2."""


class CallbackError(SignInRefused):
    """The authorization response was refused."""


class StateMissing(CallbackError, code="state_missing"):
    """The callback bears no state."""


class StateReplayed(CallbackError, code="state_replayed"):
    """This state was spent before."""


class StateUnknown(CallbackError, code="state_unknown"):
    """This browser has no pending sign-in of that state."""


class StateExpired(CallbackError, code="state_expired"):
    """The pending sign-in is too old."""


class IssMismatch(CallbackError, code="iss_mismatch"):
    """The response's iss is not the issuer (RFC 9207)."""


class IssMissing(CallbackError, code="iss_missing"):
    """The OP promises iss in its responses, and this one has none (RFC 9207)."""


class ProviderError(CallbackError, code="provider_error"):
    """The OP answered with an error."""

    def __init__(self, error: str) -> None:
        """error: a registered code, or `other`."""
        super().__init__()
        self.error = error


class ParameterRepeated(CallbackError, code="parameter_repeated"):
    """A parameter of the response stands in it more than once (RFC 6749 3.1)."""


class CodeMissing(CallbackError, code="code_missing"):
    """The response has neither a code nor an error."""


class TokenResponseError(SignInRefused):
    """The token response was refused."""


class TokenError(TokenResponseError, code="token_error"):
    """The token endpoint answered with an error (RFC 6749 5.2)."""

    def __init__(self, message: str = "", *, status: int, error: str = "other") -> None:
        """error: a registered code, or `other`."""
        super().__init__(message)
        self.error = error
        self.provider_fault = status >= 500


class TokenResponseInvalid(TokenResponseError, code="token_response_invalid", provider_fault=True):
    """The token response is not the JSON object of RFC 6749 5.1."""


class TokenTypeUnsupported(TokenResponseError, code="token_type_unsupported"):
    """token_type is not Bearer."""


class IDTokenMissing(TokenResponseError, code="id_token_missing"):
    """The token response has no ID Token."""


class AccessTokenMissing(TokenResponseError, code="access_token_missing"):
    """The token response has no access token."""


class AccessTokenLifetime(TokenResponseError, code="access_token_lifetime"):
    """expires_in is not a positive integer, or is longer than allowed."""


class IDTokenError(SignInRefused):
    """The ID Token was refused."""


class TokenMalformed(IDTokenError, code="token_malformed"):
    """Not a compact JWS with a JSON object inside (RFC 7515 7.1)."""


class AlgNotAllowed(IDTokenError, code="alg_not_allowed"):
    """The token's alg is not among the allowed ones."""


class SignatureInvalid(IDTokenError, code="signature_invalid"):
    """The signature does not verify."""


class IssInvalid(IDTokenError, code="iss_invalid"):
    """iss is not the issuer."""


class AudInvalid(IDTokenError, code="aud_invalid"):
    """aud does not name this client, or names one that is not trusted."""


class AzpInvalid(IDTokenError, code="azp_invalid"):
    """azp is missing or is not this client."""


class ExpInvalid(IDTokenError, code="exp_invalid"):
    """exp is missing, no NumericDate, or in the past."""


class IatInvalid(IDTokenError, code="iat_invalid"):
    """iat is missing, no NumericDate, too old or in the future."""


class NbfInvalid(IDTokenError, code="nbf_invalid"):
    """nbf is no NumericDate or in the future."""


class NonceInvalid(IDTokenError, code="nonce_invalid"):
    """nonce is missing or is not this sign-in's."""


class TokenReplayed(IDTokenError, code="token_replayed"):
    """The token belongs to an earlier sign-in."""


class SubInvalid(IDTokenError, code="sub_invalid"):
    """sub is not 1 to 255 ASCII characters."""


class SubNotPairwise(IDTokenError, code="sub_not_pairwise"):
    """sub is an identifier that other clients see too."""


class AuthTimeMissing(IDTokenError, code="auth_time_missing"):
    """max_age was asked for, and auth_time is missing."""


class AuthTimeStale(IDTokenError, code="auth_time_stale"):
    """The person's authentication is older than max_age."""


class AcrInsufficient(IDTokenError, code="acr_insufficient"):
    """acr is not among the acr_values asked for."""


class AtHashInvalid(IDTokenError, code="at_hash_invalid"):
    """at_hash does not match the access token."""


class IDTokenLifetime(IDTokenError, code="id_token_lifetime"):
    """The ID Token lives longer than the provider's profile allows."""


class UserInfoError(SignInRefused):
    """The UserInfo response was refused."""


class UserInfoInvalid(UserInfoError, code="userinfo_invalid", provider_fault=True):
    """The UserInfo response is no JSON object, or not signed as it must be, or was not answered with 200."""


class UserInfoSubMismatch(UserInfoError, code="userinfo_sub_mismatch"):
    """UserInfo speaks of another sub than the ID Token (Core 5.3.2)."""


class AccountError(SignInRefused):
    """The person has no way in here."""


class ProviderUnknown(AccountError, code="provider_unknown"):
    """No provider of that name is declared."""


class ClaimMissing(AccountError, code="claim_missing"):
    """An essential claim did not come."""


class SubjectKeyMissing(AccountError, code="subject_key_missing"):
    """Digests bear a subject key that is not configured, so nobody can be told to be new."""


class NotProvisioned(AccountError, code="not_provisioned"):
    """The person is new here, and this provider does not create accounts."""


class SubjectChanged(AccountError, code="subject_changed"):
    """The person who answered is not the one whose session was to be renewed, or that session is here no more."""


class UserInactive(AccountError, code="user_inactive"):
    """The account is deactivated."""
