"""The kinds of security alerts in words: a label, one sentence, and what the key of an alert is.
Pure data.

docs/how-to/detect-anomalies.md and docs/reference/events.md define the kinds.
"""

from collections.abc import Mapping

_ = str  # Marks a text for makemessages; the functions of the package translate it.

ALERT_LABELS: Mapping[str, str] = {
    "refusals_by_address": _("Many refusals from one address"),
    "refusals_by_provider": _("Many refusals at one provider"),
    "refusals_by_person": _("Many refusals of one person"),
    "replay": _("Repeated use of a token or sign-in"),
    "logout_token_refused": _("Sign-out request of a provider refused"),
    "token_forged": _("Possibly forged token or answer"),
    "token_expired": _("Sign-in with an expired token"),
    "expired_tokens_in_use": _("Expired access tokens in use"),
    "revocations_fail": _("Revocations fail"),
    "many_sessions_ended": _("Sessions of many people ended"),
    "many_records": _("Unusually many records viewed"),
    "record_of_interest": _("One record viewed by many users"),
    "trail_altered": _("Audit log altered"),
    "log_replaced": _("Audit log restored or replaced"),
    "provider_keys_changed": _("Keys of a provider changed"),
    "provider_metadata_changed": _("Metadata of a provider changed"),
    "access_token_lifetime": _("Access tokens valid for too long"),
    "break_glass_used": _("Local account used"),
    "delivery_lag": _("Delivery of the audit log is late"),
    "delivery_refused": _("Delivery of the audit log refused"),
    "delivery_stopped": _("Delivery of the audit log stopped"),
    "emergency_limit": _("Too many emergency accesses"),
    "emergency_opened": _("Emergency access opened"),
    "encryption_key_missing": _("Encryption key missing"),
    "event_forged": _("Forged events"),
    "event_invalid": _("Invalid events"),
    "event_key_retired": _("Old key of the audit log in use"),
    "event_key_unknown": _("Events under an unknown key"),
    "event_set_aside": _("Events set aside"),
    "event_unqueued": _("Events removed from the sealing queue"),
    "events_signed_late": _("Events signed late"),
    "identifier_changed": _("Address of a person changed at the provider"),
    "identifier_recycled": _("Address of a person given to another person"),
    "last_administrator": _("Last administrator kept"),
    "last_administrator_disabled": _("Last administrator disabled"),
    "leak_body": _("Secret data in a response"),
    "leak_cookie": _("Secret data in a cookie of a response"),
    "leak_header": _("Secret data in a header"),
    "leak_location": _("Secret data in a redirect"),
    "leak_referer": _("Secret data in a referrer"),
    "leak_request_cookie": _("Secret data in a cookie of a request"),
    "leak_url": _("Secret data in an address"),
    "logout_sub_mismatch": _("Sign-out names another person"),
    "outbox_refused": _("Events of the outbox refused"),
    "protection_altered": _("Protection of the audit database altered"),
    "refusal_burst": _("Burst of refusals"),
    "retention_key_kept": _("Retention key not destroyed"),
    "revocation_abandoned": _("Revocation given up"),
    "revocation_blocked": _("Revocation blocked"),
    "revocation_refused": _("Revocation refused by the provider"),
    "sealing_lag": _("Sealing of the audit log is late"),
    "sealing_refused": _("Sealing of the audit log refused"),
    "session_undecryptable": _("Data of a session is damaged"),
    "signal_refused": _("Security event of a provider refused"),
    "signals_stopped": _("Security events of a provider stopped"),
    "spool_altered": _("Emergency events altered on disk"),
    "witness_invalid": _("Invalid answer of a witness"),
    "witness_quorum": _("Audit log is not cosigned"),
    "witness_refused": _("Audit log refused by a witness"),
    "witness_unavailable": _("Witness of the audit log is away"),
}

ALERT_EXPLANATIONS: Mapping[str, str] = {
    "refusals_by_address": _(
        "Many sign-ins or tokens from one address were refused within five minutes."
    ),
    "refusals_by_provider": _(
        "Many sign-ins or tokens of one provider were refused within five minutes."
    ),
    "refusals_by_person": _(
        "Several sign-ins, tokens or codes of one person were refused within ten minutes."
    ),
    "replay": _(
        "A state, token or logout token was used a second "
        "time, by an attack or by reloading a page."
    ),
    "logout_token_refused": _(
        "A sign-out request was refused, so sessions that it names may still be live."
    ),
    "token_forged": _("A token or an answer does not come from where it claims to come from."),
    "token_expired": _("A sign-in was tried with an ID Token that had expired."),
    "expired_tokens_in_use": _(
        "Several expired access tokens were used at the portal’s APIs within ten minutes."
    ),
    "revocations_fail": _(
        "Several attempts to revoke tokens at one provider failed within 15 minutes."
    ),
    "many_sessions_ended": _(
        "A user or an operator ended the sessions of many people within an hour."
    ),
    "many_records": _("A user viewed the data of many more persons in one day than usual."),
    "record_of_interest": _("Many different users viewed the same record within one day."),
    "trail_altered": _("An event is missing, or differs from what was sealed."),
    "log_replaced": _("The audit log is not the one that was read before."),
    "provider_keys_changed": _(
        "The provider added or removed a signing key, as in a regular key rotation."
    ),
    "provider_metadata_changed": _("The provider’s configuration differs from the last check."),
    "access_token_lifetime": _(
        "An access token is valid for more than an hour, or its lifetime is unknown."
    ),
    "break_glass_used": _("A user signed in with the password of a local account."),
    "delivery_lag": _("Entries of the audit log have not reached a receiver in time."),
    "delivery_refused": _("A receiver refuses the entries of the audit log."),
    "delivery_stopped": _(
        "Nothing more is delivered to a receiver until an operator corrects the cause."
    ),
    "emergency_limit": _(
        "A user tried to open more emergency accesses than are permitted without a review."
    ),
    "emergency_opened": _("A user opened emergency access, which another person must review."),
    "encryption_key_missing": _(
        "Sessions could not be decrypted, because a server lacks an encryption key."
    ),
    "event_forged": _("Events in the database do not have a valid signature of the portal."),
    "event_invalid": _("Signed events have content that this app never writes."),
    "event_key_retired": _("Events are signed with a key that is not the newest one."),
    "event_key_unknown": _("Events are signed with a key that is not configured."),
    "event_set_aside": _(
        "A reader of the audit log could not process events, and goes on without them."
    ),
    "event_unqueued": _("Valid events are neither sealed nor waiting to be sealed."),
    "events_signed_late": _("Events waited for their signature, because the keys were missing."),
    "identifier_changed": _(
        "The provider reports another e-mail address or telephone number of a person."
    ),
    "identifier_recycled": _(
        "The provider reports that an address of a person now belongs to another person."
    ),
    "last_administrator": _(
        "A user lost a role at the provider but keeps it here, because no other active user has it."
    ),
    "last_administrator_disabled": _(
        "The identity system disabled an account whose roles no other active account has: give "
        "them to another user."
    ),
    "leak_body": _(
        "The leak guard found a token, a code or disclosed data in the body of a response."
    ),
    "leak_cookie": _(
        "The leak guard found a token, a code or disclosed data in a cookie that the portal sets."
    ),
    "leak_header": _(
        "The leak guard found a token, a code or disclosed data in a header of a response."
    ),
    "leak_location": _(
        "The leak guard found a token, a code or disclosed data in the target of a redirect."
    ),
    "leak_referer": _(
        "The leak guard found a token, a code or disclosed data in the referrer of a request."
    ),
    "leak_request_cookie": _(
        "The leak guard found a token, a code or disclosed data in a cookie of a request."
    ),
    "leak_url": _(
        "The leak guard found a token, a code or disclosed data in the address of a request."
    ),
    "logout_sub_mismatch": _(
        "A sign-out request ended a session whose person is another one than it names."
    ),
    "outbox_refused": _(
        "The outbox keeps events that this portal did not write, or that were changed."
    ),
    "protection_altered": _(
        "Triggers or settings that protect the audit database are not as they were installed."
    ),
    "refusal_burst": _(
        "So many refusals had one reason within a minute that "
        "they were counted and not recorded singly."
    ),
    "retention_key_kept": _(
        "A key could not be destroyed, so erased data in backups may still be readable."
    ),
    "revocation_abandoned": _(
        "A token could not be revoked for so long that no further attempt is made."
    ),
    "revocation_blocked": _("A token cannot be revoked until an operator corrects the cause."),
    "revocation_refused": _("The provider refused for good to revoke a token."),
    "sealing_lag": _("Events have waited for more than five minutes to be sealed."),
    "sealing_refused": _(
        "Nothing is sealed, because the audit log does not continue what was signed before."
    ),
    "session_undecryptable": _(
        "A token, the session key or the ID Token of a session is damaged and cannot be decrypted."
    ),
    "signal_refused": _(
        "A security event was refused, so sessions that it should end may still be live."
    ),
    "signals_stopped": _("The provider paused or disabled the stream of its security events."),
    "spool_altered": _("Lines of the emergency file were changed after they were written."),
    "witness_invalid": _("A witness gave an answer that no honest witness gives."),
    "witness_quorum": _("Too few witnesses have cosigned the audit log within five minutes."),
    "witness_refused": _(
        "A witness states that the audit log was rewritten, or is shorter than before."
    ),
    "witness_unavailable": _("A witness has not cosigned the audit log for 15 minutes."),
}
