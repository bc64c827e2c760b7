"""The error of a change of keys, and its code."""

from ...errors import KeyRingError, RuleCode


class KeyRotationCode(RuleCode):
    """The code of a change of keys."""

    KEY_IN_USE = "key_in_use", "", "Something made with the key is still needed."


class KeyInUse(KeyRingError):
    """Something made with the key is still needed: the key is configured, or subjects are
    identified by it alone.
    """

    code = KeyRotationCode.KEY_IN_USE
