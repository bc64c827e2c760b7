"""Every error of the app. Each refusal carries its rule's code; none carries a token, a `sub` or a claim value.

PhiOidcError
├── SignInRefused                 the sign-in ends here; `code` goes to the trail, never to the browser
│   ├── TransportError            R1, the only kind that may be tried again
│   ├── MetadataError             R2
│   ├── PushedRequestError        R3
│   ├── CallbackError             R4
│   ├── TokenResponseError        R5
│   ├── IDTokenError              R6
│   ├── UserInfoError             R7
│   └── AccountError              the person is known to the OP, but has no way in here
├── RefreshMismatch               R8, of a session that lives
├── TokenExpired, RefreshInsideTransaction
├── LogoutTokenInvalid            R9, and LogoutTokenReplayed: the OP's word that somebody signed out
├── AccessTokenInvalid            what came to the portal's own API; IntrospectionFailed: the OP can't be asked about it
├── AuditUnavailable              no event, no permit
├── SealingRefused                signing now would fork the log
├── ProofInvalid, CheckpointInvalid
├── RevealRefused                 the policy says no
├── ClaimScrubbed                 it was held once, it is gone
├── HeldForLegalReasons           it may not be erased now
├── SubjectTaken                  an administrator links whom somebody linked before
├── InvitationRefused             no activation code for that account; ActivationRefused: a code that lets nobody in
├── EmergencyRefused              it is not opened, or not reviewed by this person
├── DeclarationInvalid            what the project declared can't be meant
└── KeyRingError                  keys and what they sealed

`provider_fault` decides the status of the page: 503 for what the OP must mend, 403 for every other refusal.
"""


class PhiOidcError(Exception):
    """Base of every error that this app raises on purpose."""

    code = "error"
    provider_fault = False

    def __init_subclass__(cls, *, code: str = "", provider_fault: bool | None = None) -> None:
        super().__init_subclass__()
        if code:
            cls.code = code
        if provider_fault is not None:
            cls.provider_fault = provider_fault

    def __init__(self, message: str = "", **details: object) -> None:
        """message: in English, with a `%(name)s` for each of details, so that a page can translate it first."""
        self.message, self.details = message or (self.__doc__ or "").partition("\n")[0], details
        super().__init__(self.message % details if details else self.message)


# A sign-in is refused: rules R1 to R7.


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


# Outside a sign-in.


_ = str  # Marks a text for makemessages: the page that shows it translates it.


class RefreshMismatch(PhiOidcError, code="refresh_mismatch"):
    """The new ID Token speaks of another person, client or authentication than the first one (Core 12.2)."""


class TokenExpired(PhiOidcError, code="token_expired"):
    """There is no live access token, and none to be had: the session has ended, or the OP gives no other one now."""


class RefreshInsideTransaction(PhiOidcError, code="refresh_inside_transaction"):
    """The access token must be refreshed, and on SQLite nothing can be committed beside an open transaction."""


class LogoutTokenInvalid(PhiOidcError, code="logout_token_invalid"):
    """The logout token is not this OP's for this client and for now (Back-Channel Logout 2.6)."""

    def __init__(self, rule: str) -> None:
        """rule: what was wrong: a code of R6, or one like it. For the log alone."""
        super().__init__()
        self.rule = rule


class LogoutTokenReplayed(PhiOidcError, code="logout_token_replayed"):
    """The logout token was spent before."""


class AccessTokenInvalid(PhiOidcError, code="access_token_invalid"):
    """The access token is not good at this API now (RFC 9068 4; RFC 7662 2.2), or its person has no account."""

    def __init__(self, rule: str) -> None:
        """rule: what was wrong: a code of R6, or one like it. For the log and the trail."""
        super().__init__()
        self.rule = rule


class IntrospectionFailed(PhiOidcError, code="introspection_failed"):
    """The OP does not tell what it knows of an access token (RFC 7662 2.2, 2.3)."""


class AuditUnavailable(PhiOidcError, code="audit_unavailable"):
    """The audit trail can't be written, so nothing is permitted."""


class SealingRefused(PhiOidcError, code="sealing_refused"):
    """The log is not a continuation of what was signed before, or the key is not there to sign it."""


class ProofInvalid(PhiOidcError, code="proof_invalid"):
    """The proof does not lead to the root (RFC 6962 2.1)."""


class CheckpointInvalid(PhiOidcError, code="checkpoint_invalid"):
    """No checkpoint, or not signed by a known key (C2SP tlog-checkpoint)."""


class RevealRefused(PhiOidcError, code="reveal_refused"):
    """The claim may not be revealed to this actor for this purpose; `reason` says which rule refused."""

    def __init__(self, reason: str) -> None:
        """reason: a code out of access.policy."""
        super().__init__(f"The claim may not be revealed: {reason}.")
        self.reason = reason


class ClaimScrubbed(PhiOidcError, code="claim_scrubbed"):
    """The claim was held and has been erased, or its time is over."""


class HeldForLegalReasons(PhiOidcError, code="held_for_legal_reasons"):
    """A legal hold keeps what is held of this person: release it first."""


class SubjectTaken(PhiOidcError, code="subject_taken"):
    """The person is linked to an account already; `user` is its primary key, for an administrator's eyes."""

    def __init__(self, user: object) -> None:
        super().__init__(_("This person is linked to user %(user)s already."), user=user)
        self.user = user


class InvitationRefused(PhiOidcError, code="invitation_refused"):
    """No activation code can be made; the message says why, for an administrator's eyes."""


class ActivationRefused(PhiOidcError, code="activation_refused"):
    """The activation code lets nobody in, or not this person; `reason` says why, for the trail alone."""

    def __init__(self, reason: str, *, user: object = "") -> None:
        """user: the primary key of the user whom the code was made for; empty where it is no code."""
        super().__init__()
        self.reason, self.user = reason, user


class RegistrationUnsupported(PhiOidcError, code="registration_unsupported"):
    """The OP names no registration endpoint (Discovery 3)."""


class RegistrationRefused(PhiOidcError, code="registration_refused"):
    """The OP did not register the client (RFC 7591 3.2.2)."""

    def __init__(self, error: str) -> None:
        """error: the OP's error code out of the specifications, or `status_` and the answer's status."""
        super().__init__(f"The provider did not register the client: {error}.")
        self.error = error


class EmergencyRefused(PhiOidcError, code="emergency_refused"):
    """The emergency access is not opened, closed or reviewed; `reason` says which rule refused."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Emergency access is refused: {reason}.")
        self.reason = reason


class DeclarationInvalid(PhiOidcError, code="declaration_invalid"):
    """A setting is not as it must be; the message names the option."""


class KeyRingError(PhiOidcError, code="key_ring_error"):
    """A key ring can't do what was asked of it."""


class KeyMissing(KeyRingError, code="key_missing"):
    """A key ring is empty, or a key in it is not 32 bytes of base64url."""


class KeyInUse(KeyRingError, code="key_in_use"):
    """What a key made is still needed: the key is configured, or persons are known by it alone."""


class Undecryptable(KeyRingError, code="undecryptable"):
    """The sealed text is damaged, foreign, of a missing key, or was moved here from elsewhere."""


class KeySourceUnavailable(KeyMissing):
    """No key can be read: the key list, its file or the key service is unavailable or invalid."""


class KeyUnknown(Undecryptable):
    """The ciphertext names a key that is not in the key list or the retention key store."""


class CiphertextInvalid(Undecryptable):
    """The ciphertext is damaged, was made elsewhere, or was copied from another row or column."""
