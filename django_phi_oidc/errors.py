"""All errors that this app raises on purpose, and their codes.

An error has the code of the rule that refused. No message contains a token, a `sub`, a claim value
or a query string.
A sign-in error is one of eight classes, one for each step of a sign-in (R1 to R7 in
docs/reference/codes.md, and the account); callers that treat one rule differently compare
`error.code`. Host projects catch the other errors by class.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from enum import StrEnum
from typing import Any

_ = str  # Marks a message for makemessages; the page that shows it translates it.
_HELD = _("A legal hold protects the data of this person. Release it first.")


class RuleCode(StrEnum):
    """The code of a rule, which never changes. The core and each app have a subclass."""

    rule: str
    """R1 to R7, `account`, or empty outside a sign-in."""
    description: str
    is_provider_fault: bool
    """Whether only the provider can correct it."""

    def __new__(
        cls, value: str, rule: str, description: str, is_provider_fault: bool = False
    ) -> "RuleCode":
        code = str.__new__(cls, value)
        code._value_ = value
        code.rule = rule
        code.description = description
        code.is_provider_fault = is_provider_fault
        return code


class Code(RuleCode):
    """The codes of the core."""

    SIGN_IN_REFUSED = "sign_in_refused", "", "The sign-in was refused."
    PROVIDER_SUSPENDED = (
        "provider_suspended",
        "",
        "Calls to the provider are slow or hang, so no other one is made now.",
        True,
    )
    # R1: transport
    TRANSPORT_NOT_HTTPS = (
        "transport_not_https",
        "R1",
        "An endpoint is not https, nor an allowed loopback one.",
        True,
    )
    TRANSPORT_REDIRECT = (
        "transport_redirect",
        "R1",
        "The provider answered with a redirect; none is followed.",
        True,
    )
    TRANSPORT_UNREACHABLE = (
        "transport_unreachable",
        "R1",
        "The connection failed, or the name does not resolve.",
        True,
    )
    TRANSPORT_TOO_LARGE = (
        "transport_too_large",
        "R1",
        "The body exceeds the limit; reading stopped there.",
        True,
    )
    TRANSPORT_ENCODING = (
        "transport_encoding",
        "R1",
        "The body is encoded although identity was requested.",
        True,
    )
    TRANSPORT_TIMEOUT = "transport_timeout", "R1", "The exchange exceeded its deadline.", True
    TRANSPORT_TLS = "transport_tls", "R1", "The provider's certificate could not be verified.", True
    PROVIDER_UNAVAILABLE = (
        "provider_unavailable",
        "R1",
        "The provider answers 429 or 5xx (RFC 9110 15.6).",
        True,
    )
    # R2: metadata and keys
    ISSUER_MISMATCH = (
        "issuer_mismatch",
        "R2",
        "The metadata names another issuer (Discovery 4.3).",
        True,
    )
    METADATA_INVALID = (
        "metadata_invalid",
        "R2",
        "The metadata or key set does not conform to Discovery 3.",
        True,
    )
    PAIRWISE_UNSUPPORTED = (
        "pairwise_unsupported",
        "R2",
        "The provider does not offer pairwise subjects.",
    )
    ALG_UNSUPPORTED = (
        "alg_unsupported",
        "R2",
        "The provider signs with none of the allowed algorithms.",
    )
    REVOCATION_UNSUPPORTED = (
        "revocation_unsupported",
        "R2",
        "The provider lacks the required revocation endpoint.",
    )
    PAR_UNSUPPORTED = (
        "par_unsupported",
        "R2",
        "The declaration and the metadata disagree about pushed requests.",
    )
    DPOP_UNSUPPORTED = (
        "dpop_unsupported",
        "R2",
        "The provider does not accept DPoP proofs with ES256 (RFC 9449 5.1).",
    )
    PROFILE_UNSUPPORTED = (
        "profile_unsupported",
        "R2",
        "The metadata lacks what the declared profile requires.",
    )
    KEY_NOT_FOUND = "key_not_found", "R2", "No published key fits the token (Core 10.1.1).", True
    # R3: pushed authorization request
    PAR_ERROR = (
        "par_error",
        "R3",
        "The pushed authorization request endpoint answered with an error (RFC 9126 2.3).",
    )
    PAR_RESPONSE_INVALID = (
        "par_response_invalid",
        "R3",
        "The response is not the JSON object of RFC 9126 2.2.",
        True,
    )
    # R4: authorization response
    STATE_MISSING = "state_missing", "R4", "The callback has no state."
    STATE_REPLAYED = "state_replayed", "R4", "This state was used before."
    STATE_UNKNOWN = "state_unknown", "R4", "This browser has no pending sign-in with that state."
    STATE_EXPIRED = "state_expired", "R4", "The pending sign-in is too old."
    ISS_MISMATCH = "iss_mismatch", "R4", "The iss of the response is not the issuer (RFC 9207)."
    ISS_MISSING = (
        "iss_missing",
        "R4",
        "The provider announces iss in its responses, and this one has none (RFC 9207).",
    )
    PROVIDER_ERROR = "provider_error", "R4", "The provider answered with an error."
    PARAMETER_REPEATED = (
        "parameter_repeated",
        "R4",
        "A parameter of the response occurs more than once (RFC 6749 3.1).",
    )
    CODE_MISSING = "code_missing", "R4", "The response has neither a code nor an error."
    # R5: token response
    TOKEN_ERROR = "token_error", "R5", "The token endpoint answered with an error (RFC 6749 5.2)."
    TOKEN_RESPONSE_INVALID = (
        "token_response_invalid",
        "R5",
        "The response is not the JSON of RFC 6749 5.1.",
        True,
    )
    TOKEN_TYPE_UNSUPPORTED = (
        "token_type_unsupported",
        "R5",
        "token_type is not Bearer, or not DPoP where required.",
    )
    ID_TOKEN_MISSING = "id_token_missing", "R5", "The token response has no ID Token."
    ACCESS_TOKEN_MISSING = "access_token_missing", "R5", "The token response has no access token."
    ACCESS_TOKEN_LIFETIME = (
        "access_token_lifetime",
        "R5",
        "expires_in is no positive integer, or is too long.",
    )
    # R6: ID Token
    TOKEN_MALFORMED = (
        "token_malformed",
        "R6",
        "Not a compact JWS that contains a JSON object (RFC 7515 7.1).",
    )
    ALG_NOT_ALLOWED = "alg_not_allowed", "R6", "The alg of the token is not an allowed one."
    ENCRYPTION_UNDECLARED = (
        "encryption_undeclared",
        "R6",
        "The token is encrypted, and no encryption is declared.",
    )
    ENCRYPTION_MISSING = (
        "encryption_missing",
        "R6",
        "The token is not encrypted, and encryption is declared.",
    )
    DECRYPTION_FAILED = (
        "decryption_failed",
        "R6",
        "The token is not encrypted with a key of this client.",
    )
    SIGNATURE_INVALID = "signature_invalid", "R6", "The signature is not valid."
    TYP_INVALID = "typ_invalid", "R6", "typ is that of another kind of token, such as logout+jwt."
    ISS_INVALID = "iss_invalid", "R6", "iss is not the issuer."
    AUD_INVALID = (
        "aud_invalid",
        "R6",
        "aud does not name this client, or names an untrusted audience.",
    )
    AZP_INVALID = "azp_invalid", "R6", "azp is missing or is not this client."
    EXP_INVALID = "exp_invalid", "R6", "exp is missing, not a NumericDate, or in the past."
    IAT_INVALID = (
        "iat_invalid",
        "R6",
        "iat is missing, not a NumericDate, too old or in the future.",
    )
    NBF_INVALID = "nbf_invalid", "R6", "nbf is not a NumericDate, or is in the future."
    NONCE_INVALID = "nonce_invalid", "R6", "nonce is missing or is not the nonce of this sign-in."
    TOKEN_REPLAYED = "token_replayed", "R6", "The token belongs to an earlier sign-in."
    SUB_INVALID = "sub_invalid", "R6", "sub is not 1 to 255 ASCII characters."
    SUB_NOT_PAIRWISE = (
        "sub_not_pairwise",
        "R6",
        "sub is an identifier that other clients receive too.",
    )
    AUTH_TIME_MISSING = (
        "auth_time_missing",
        "R6",
        "max_age was requested, and auth_time is missing.",
    )
    AUTH_TIME_STALE = "auth_time_stale", "R6", "The user's authentication is older than max_age."
    ACR_INSUFFICIENT = "acr_insufficient", "R6", "acr is not among the accepted values."
    VTM_INVALID = "vtm_invalid", "R6", "vtm is not the declared trust mark (RFC 8485 5)."
    VOT_INSUFFICIENT = (
        "vot_insufficient",
        "R6",
        "vot lacks a component of each vector in vtr (RFC 8485 4).",
    )
    AMR_INSUFFICIENT = "amr_insufficient", "R6", "amr has none of the required methods (RFC 8176)."
    AT_HASH_INVALID = "at_hash_invalid", "R6", "at_hash does not match the access token."
    ID_TOKEN_LIFETIME = (
        "id_token_lifetime",
        "R6",
        "The ID Token is valid for longer than the profile allows.",
    )
    # R7: UserInfo
    USERINFO_INVALID = (
        "userinfo_invalid",
        "R7",
        "The UserInfo response is no JSON object, unsigned or an error.",
        True,
    )
    USERINFO_SUB_MISMATCH = (
        "userinfo_sub_mismatch",
        "R7",
        "UserInfo has another sub than the ID Token (Core 5.3.2).",
    )
    # Account
    PROVIDER_UNKNOWN = "provider_unknown", "account", "No provider of that name is declared."
    CLAIM_MISSING = "claim_missing", "account", "An essential claim is missing."
    SUBJECT_KEY_MISSING = (
        "subject_key_missing",
        "account",
        "A subject key that made stored digests is missing.",
    )
    NOT_PROVISIONED = (
        "not_provisioned",
        "account",
        "The subject is new, and this provider does not create accounts.",
    )
    EMAIL_MATCH_REFUSED = (
        "email_match_refused",
        "account",
        "The verified e-mail address must not link to its account.",
    )
    SUBJECT_ALTERED = (
        "subject_altered",
        "account",
        "The link of the subject was changed outside of this app.",
    )
    ACCOUNT_NOT_SAVED = (
        "account_not_saved",
        "account",
        "The database or a hook of the project refused the account.",
    )
    SUBJECT_CHANGED = (
        "subject_changed",
        "account",
        "The session to renew has another subject, or has ended.",
    )
    USER_INACTIVE = "user_inactive", "account", "The account is inactive."
    LOGGED_OUT = (
        "logged_out",
        "account",
        "The provider ended this sign-in while it was in progress.",
    )
    # Outside a sign-in
    REFRESH_MISMATCH = (
        "refresh_mismatch",
        "",
        "The new ID Token has another subject, client or authentication.",
    )
    TOKEN_EXPIRED = "token_expired", "", "There is no valid access token, and none can be obtained."
    REFRESH_INSIDE_TRANSACTION = (
        "refresh_inside_transaction",
        "",
        "SQLite cannot commit the refresh in a transaction.",
    )
    LOGOUT_TOKEN_INVALID = (
        "logout_token_invalid",
        "",
        "The logout token is not valid (Back-Channel Logout 2.6).",
    )
    LOGOUT_TOKEN_REPLAYED = "logout_token_replayed", "", "The logout token was used before."
    AUDIT_UNAVAILABLE = (
        "audit_unavailable",
        "",
        "The audit log cannot be written, so nothing is permitted.",
    )
    REVEAL_REFUSED = (
        "reveal_refused",
        "",
        "The claim may not be revealed to this actor for this purpose.",
    )
    CLAIM_SCRUBBED = (
        "claim_scrubbed",
        "",
        "The claim was stored and has been erased, or its retention has ended.",
    )
    HELD_FOR_LEGAL_REASONS = "held_for_legal_reasons", "", _HELD
    SUBJECT_TAKEN = "subject_taken", "", "The subject is linked to a user already."
    DECLARATION_INVALID = (
        "declaration_invalid",
        "",
        "A setting is not valid; the message names the option.",
    )
    KEY_RING_ERROR = "key_ring_error", "", "A key ring cannot do what was requested."
    KEY_MISSING = (
        "key_missing",
        "",
        "A key ring is empty, or a key in it is not 32 bytes of base64url.",
    )
    UNDECRYPTABLE = (
        "undecryptable",
        "",
        "The ciphertext is damaged, or belongs to another row or a missing key.",
    )


def list_codes() -> Iterator[RuleCode]:
    """Yield the codes of the core and of the installed apps. Requires: the apps are ready."""
    for kind in RuleCode.__subclasses__():
        yield from kind


class PhiOidcError(Exception):
    """Base of every error that this app raises on purpose."""

    code: RuleCode

    def __init__(self, message: str = "", **details: object) -> None:
        """message: in English, with a `%(name)s` for each of details, so that a page can translate
        it first.
        """
        self.message = message or self.code.description
        self.details = details
        super().__init__(self.message % details if details else self.message)

    @property
    def is_provider_fault(self) -> bool:
        """Whether only the provider can correct it: the page's status is 503 then, otherwise
        403.
        """
        return self.code.is_provider_fault

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles do not call the constructor, because subclasses have other parameters.
        return type(self).__new__, (type(self), *self.args), vars(self)


class SignInRefused(PhiOidcError):
    """The sign-in was refused. `code` goes to the audit log, never to the browser."""

    code: RuleCode = Code.SIGN_IN_REFUSED
    retry_after: timedelta | None = None
    """How long the provider asks to wait."""

    def __init__(self, code: RuleCode | None = None, message: str = "", **details: object) -> None:
        self.code = code or self.code
        super().__init__(message, **details)


class TransportError(SignInRefused):
    """R1: the exchange with the provider failed. The only kind that may be retried."""


class MetadataError(SignInRefused):
    """R2: the provider's metadata or keys cannot be used."""


class KeyNotFound(MetadataError):
    """No published key fits the token (Core 10.1.1)."""

    def __init__(self, message: str = "", *, is_certain: bool = True) -> None:
        """is_certain: the key set was fetched just now. Otherwise the provider may have published a
        newer one.
        """
        super().__init__(Code.KEY_NOT_FOUND, message)
        self.is_certain = is_certain


class PushedRequestError(SignInRefused):
    """R3: the pushed authorization request was not accepted."""


class CallbackError(SignInRefused):
    """R4: the authorization response was refused."""


class ProviderError(CallbackError):
    """The provider answered with an error."""

    def __init__(self, error: str) -> None:
        """error: a registered code, or `other`."""
        super().__init__(Code.PROVIDER_ERROR)
        self.error = error


class TokenResponseError(SignInRefused):
    """R5: the token response was refused."""


class _ErrorResponse(SignInRefused):
    """An endpoint answered with an error. `answer`: the code, the name of the endpoint, and the
    specification.
    """

    answer: tuple[RuleCode, str, str]

    def __init__(
        self, *, status: int, error: str = "other", retry_after: timedelta | None = None
    ) -> None:
        """error: a registered code, or `other`."""
        code, endpoint, section = self.answer
        super().__init__(
            code, f"The {endpoint} endpoint answered {status}, error {error} ({section})."
        )
        self.status = status
        self.error = error
        self.retry_after = retry_after

    @property
    def is_provider_fault(self) -> bool:
        return self.status == 429 or self.status >= 500  # RFC 6585 4, RFC 9110 15.6


class TokenError(_ErrorResponse, TokenResponseError):
    """The token endpoint answered with an error (RFC 6749 5.2)."""

    answer = Code.TOKEN_ERROR, "token", "RFC 6749 5.2"


class PARError(_ErrorResponse, PushedRequestError):
    """The pushed authorization request endpoint answered with an error (RFC 9126 2.3)."""

    answer = Code.PAR_ERROR, "PAR", "RFC 9126 2.3"


class IDTokenError(SignInRefused):
    """R6: the ID Token was refused."""


class UserInfoError(SignInRefused):
    """R7: the UserInfo response was refused."""


class AccountError(SignInRefused):
    """The provider knows the subject, but the subject has no access here."""


class ClaimMissing(AccountError):
    """Essential claims are missing. `claims` are their names, as they are declared."""

    def __init__(self, claims: Iterable[str]) -> None:
        self.claims = tuple(claims)
        super().__init__(
            Code.CLAIM_MISSING, f"Essential claims are missing: {', '.join(self.claims)}."
        )


class SubjectKeyMissing(AccountError):
    """Stored digests were made with a subject key that is not configured, so a new subject cannot
    be recognized.
    """

    code = Code.SUBJECT_KEY_MISSING


class NotProvisioned(AccountError):
    """The subject is new, and this provider does not create accounts."""

    code = Code.NOT_PROVISIONED


class EmailMatchRefused(NotProvisioned):
    """The verified e-mail address must not link the new subject; `match` names the rule, for the
    audit log only.
    """

    def __init__(self, match: str) -> None:
        super().__init__(Code.EMAIL_MATCH_REFUSED)
        self.match = match


class SubjectAltered(AccountError):
    """The link from the subject to its account was changed in the database, so it is not
    trusted.
    """

    code = Code.SUBJECT_ALTERED


class AccountNotSaved(AccountError):
    """The account could not be created or updated; `__cause__` is the exception of the hook or of
    the database.
    """

    code = Code.ACCOUNT_NOT_SAVED


class RefreshMismatch(PhiOidcError):
    """R8: the new ID Token names another subject, client or authentication than the first one (Core
    12.2).
    """

    code = Code.REFRESH_MISMATCH


class TokenExpired(PhiOidcError):
    """There is no valid access token: the session has ended, or the provider issues no other one
    now.
    """

    code = Code.TOKEN_EXPIRED


class RefreshInsideTransaction(PhiOidcError):
    """The access token must be refreshed, and SQLite cannot commit that while a transaction is
    open.
    """

    code = Code.REFRESH_INSIDE_TRANSACTION


class TokenRefused(PhiOidcError):
    """A token that was sent to the portal is not valid; `rule` is the code of the violated rule."""

    def __init__(self, rule: str) -> None:
        """rule: the code of the violated rule, one of R6 or like it. Not for the client."""
        super().__init__()
        self.rule = rule


class LogoutTokenInvalid(TokenRefused):
    """R9: the logout token is not valid for this provider, client and time (Back-Channel Logout
    2.6).
    """

    code = Code.LOGOUT_TOKEN_INVALID


class LogoutTokenReplayed(PhiOidcError):
    """The logout token was used before."""

    code = Code.LOGOUT_TOKEN_REPLAYED


class AuditUnavailable(PhiOidcError):
    """The audit log cannot be written, so nothing is permitted."""

    code = Code.AUDIT_UNAVAILABLE


class RevealRefused(PhiOidcError):
    """The claim may not be revealed to this actor for this purpose; `reason` names the rule that
    refused.
    """

    code = Code.REVEAL_REFUSED

    def __init__(self, reason: str) -> None:
        """reason: a code of access.policy."""
        super().__init__(f"The claim may not be revealed: {reason}.")
        self.reason = reason


class ClaimScrubbed(PhiOidcError):
    """The claim was stored and has been erased, or its retention has ended."""

    code = Code.CLAIM_SCRUBBED


class HeldForLegalReasons(PhiOidcError):
    """A legal hold keeps what is stored about this person."""

    code = Code.HELD_FOR_LEGAL_REASONS


class SubjectTaken(PhiOidcError):
    """The subject is linked to a user already; `user` is the primary key, for administrators
    only.
    """

    code = Code.SUBJECT_TAKEN

    def __init__(self, user: object) -> None:
        super().__init__(_("This person is linked to user %(user)s already."), user=user)
        self.user = user


class DeclarationInvalid(PhiOidcError):
    """A setting is not valid; the message names the option."""

    code = Code.DECLARATION_INVALID


class KeyRingError(PhiOidcError):
    """A key ring cannot do what was requested."""

    code: RuleCode = Code.KEY_RING_ERROR
    is_key_missing = False
    """The key is not available in this process at this time. The ciphertext may be intact, so
    nothing discards it.
    """


class KeyMissing(KeyRingError):
    """The source of the keys failed, has no key, or has one that is not 32 bytes of base64url."""

    code = Code.KEY_MISSING
    is_key_missing = True


class Undecryptable(KeyRingError):
    """The ciphertext is damaged, belongs to another row or to a missing key."""

    code = Code.UNDECRYPTABLE


class KeySourceUnavailable(KeyMissing):
    """No key can be read: the key list, its file or the key service is unavailable or invalid."""


class KeyUnknown(Undecryptable):
    """The ciphertext names a key that this server does not have: a lost one, or during a deployment
    the newest one.
    """

    is_key_missing = True


class CiphertextInvalid(Undecryptable):
    """The ciphertext is damaged, was made elsewhere, or was copied from another row or column."""
