"""Errors of sealing, proofs and checkpoints, and their codes."""

from ..errors import PhiOidcError, RuleCode


class LogCode(RuleCode):
    """The codes of sealing, proofs and checkpoints."""

    SEALING_REFUSED = (
        "sealing_refused",
        "",
        "The log does not continue what was signed, or the key is missing.",
    )
    PROOF_INVALID = "proof_invalid", "", "The proof does not lead to the root (RFC 6962 2.1)."
    CHECKPOINT_INVALID = (
        "checkpoint_invalid",
        "",
        "Not a checkpoint signed by a known key (C2SP tlog-checkpoint).",
    )


class SealingRefused(PhiOidcError):
    """Signing now would fork the log, or the signing key is not available."""

    code = LogCode.SEALING_REFUSED


class ProofInvalid(PhiOidcError):
    """The proof does not lead to the root (RFC 6962 2.1)."""

    code = LogCode.PROOF_INVALID


class CheckpointInvalid(PhiOidcError):
    """Not a checkpoint signed by a known key (C2SP tlog-checkpoint)."""

    code = LogCode.CHECKPOINT_INVALID


class LogDamaged(LookupError):
    """A leaf, a stored node or a tile is missing, or is another one."""


class ColumnsAltered(LogDamaged):
    """A column of the audit tables has another type than the migrations made: no value of it is
    read.
    """
