"""What is wrong when nobody is signing in."""

from .base import PhiOidcError

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
