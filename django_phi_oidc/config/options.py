"""What may stand in the setting `PHI_OIDC`: each option with its type, its default and what it means. No Django.

The tables of docs/reference/settings.md are made of what stands below the fields, here and in the declarations; the
links lead from there. `Default:` says, at the end, what it is that an empty default means.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

EMPTY_MAPPING: Mapping[str, Any] = MappingProxyType({})
KeySource = str | Path | Sequence[str] | Callable[[], Any] | None
"""A list of keys, newest first, in one of the forms in which a project may give it; None: there is none."""


class Options:
    """The options as a project writes them: they are parsed, and refused, where they are read."""

    PROVIDERS: Mapping[str, Any] = EMPTY_MAPPING
    """Name → [provider](#a-provider); the first is the default one; a name is letters, digits, `.`, `_`, `-`.
    Default: required."""
    CLAIMS: Mapping[str, Any] = EMPTY_MAPPING
    """Name → [claim](#a-claim); an undeclared claim is dropped at the door. Default: none kept."""
    ROLES: Mapping[str, Any] = EMPTY_MAPPING
    """Provider → list of [rules](#a-rule-of-roles) from the values of a claim to Django groups, `is_staff` and
    `is_superuser`. Default: none: groups are left alone."""
    API: Mapping[str, Any] = EMPTY_MAPPING
    """Provider → [which of its access tokens](#an-api) the portal's own APIs take. Default: none: no token is good."""
    ENCRYPTION_KEYS: KeySource = None
    """[Keys](#a-list-of-keys) that seal claims, tokens and pending sign-ins, newest first. Default: required."""
    SUBJECT_KEYS: KeySource = None
    """[Keys](#a-list-of-keys) of the digests by which persons are found, newest first. Default: required."""
    AUDIT_MAC_KEYS: KeySource = None
    """[Keys](#a-list-of-keys) of the events' MACs, newest first; kept as long as events bear them.
    Default: required."""
    PAIRWISE_KEY: KeySource = None
    """[Keys](#a-list-of-keys) of the identifiers that `pairwise_id` gives to downstream systems, newest first.
    Default: required for it alone."""
    AUDIT_SIGNING_KEY: Path | str | Callable[[], Any] | None = None
    """Ed25519 private key in PEM that [seals the trail](../how-to/seal-the-trail.md): `pathlib.Path`, text, or a
    callable; only where it is sealed. Default: none: nothing is sealed here."""
    AUDIT_PUBLIC_KEYS: Sequence[Path | str] = ()
    """Keys that checkpoints are verified by, beside that of `AUDIT_SIGNING_KEY`: verifier keys (`name+id+key`), PEM,
    base64 of 32 bytes, or a `pathlib.Path`."""
    AUDIT_ORIGIN: str = "phi-oidc-audit"
    """The name of the log, in each checkpoint: no spaces, no `+`; choose it once."""
    AUDIT_WITNESS_FILE: Path | str | None = None
    """Path of a file, outside of the database, that always holds the newest checkpoint; the sealer reads it, too."""
    TRUSTED_PROXIES: Sequence[str] = ()
    """Networks whose `X-Forwarded-For` is believed, counted from the right."""
    SECTOR_ORIGINS: Sequence[str] = ()
    """Further origins of this portal, such as `https://other.example`, whose redirect URIs
    `oidc/sector-identifier.json` lists."""
    SINKS: Mapping[str, Any] = EMPTY_MAPPING
    """Name → [sink](#a-sink): where the audit log is delivered to."""
    REVOCATION_GIVE_UP_AFTER: timedelta = timedelta(days=3)
    """timedelta: how long a revocation is tried before it is abandoned, with an alert."""
    IDLE_TIMEOUT: timedelta = timedelta(minutes=15)
    """timedelta: how long a session lives without an activity."""
    ABSOLUTE_TIMEOUT: timedelta = timedelta(hours=8)
    """timedelta: how long a session lives at most."""
    SESSION_RECHECK: timedelta = timedelta(seconds=30)
    """timedelta: how long a request may rely on the last look at the session's row; zero: each one looks."""
    END_SESSIONS_ON: Sequence[str] = ("password",)
    """List of the changes of an account that end its sessions: `password`, `roles`. Roles are its groups and
    permissions; Django tells of no change of a group's own permissions, of a deleted group, or of `is_staff` and
    `is_superuser`: [end those sessions](../how-to/end-sessions.md) yourself."""
    RETENTION_KEYS: Path | Any = None
    """`pathlib.Path` of a folder, or an object with `get`, `create`, `destroy` and `names`:
    [keys that claims lapse with](../how-to/retention.md#erasure-that-reaches-the-backups), in backups too.
    Default: none: claims are under `ENCRYPTION_KEYS`."""
    CLEAR_ALL_COOKIES: bool = False
    """A logout asks the browser to drop every cookie of the registered domain, those of other applications too."""
    KEEP_OFFLINE: bool = False
    """A back-channel logout leaves refresh tokens of `offline_access` alive."""
    BREAK_GLASS_ACCOUNT: str = ""
    """The user name of the one [local account](../how-to/local-accounts.md) that may sign in with a password."""
    PATIENT_RESOURCES: str | None = None
    """Dotted path of a function from a user to a list of `Type/id`: what of your project is theirs, for
    [who looked at it](../how-to/answer-a-request-of-a-person.md#tell-who-looked)."""
    ACTIVATION_LIFETIME: timedelta = timedelta(days=14)
    """timedelta, 366 days at most: for how long an [activation code](../how-to/activation-codes.md) lets in."""
    EMERGENCY: Mapping[str, Any] | None = None
    """[Emergency access](../how-to/emergency-access.md): [what may be opened](#emergency).
    Default: none: nothing is opened."""
    ALERT_RECIPIENTS: Sequence[str] = ()
    """Mail addresses that are told of [security alerts](../how-to/watch-for-anomalies.md)."""
    ANOMALY_RULES: Sequence[str] = ()
    """Dotted paths of [rules of your own](../how-to/watch-for-anomalies.md#rules-of-your-own); one of the kind of one
    of ours takes its place."""
    LEAKAGE_GUARD: Literal["report", "block"] = "report"
    """What `LeakageGuardMiddleware` does with a response that [leaks](../how-to/leakage-guard.md): `report`, or
    `block`."""
    METRICS: Sequence[str] = ()
    """List of `prometheus`, `opentelemetry`: where [metrics](../how-to/metrics-and-health.md) go."""
    EXPORT_FOLDER: Path | str | None = None
    """Absolute path of a folder, mode 0700, that the portal and its workers share:
    [exports of many events](../how-to/read-the-trail.md#take-events-out) wait there, a day at most.
    Default: none: no export of more than 10,000 events."""
    RESOURCE_IDS: Literal["plain", "keyed"] = "plain"
    """`plain`, or `keyed`: events hold [a pseudonym](#keyed-resource-ids) instead of the id in `resource`."""
