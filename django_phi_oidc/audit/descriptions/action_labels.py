"""The actions of the audit log in words: a label, and one sentence of explanation. Pure data.

docs/reference/events.md defines the actions.
"""

from collections.abc import Mapping

from ..actions import Action

_ = str  # Marks a text for makemessages; the functions of the package translate it.

ACTION_LABELS: Mapping[str, str] = {
    Action.LOGIN_SUCCEEDED: _("Sign-in"),
    Action.LOGIN_REFUSED: _("Sign-in refused"),
    Action.LOGOUT_COMPLETED: _("Sign-out"),
    Action.LOGOUT_RECEIVED: _("Sign-out at the provider"),
    Action.LOGOUT_REFUSED: _("Sign-out request of the provider refused"),
    Action.SIGNAL_RECEIVED: _("Security event of the provider"),
    Action.SIGNAL_REFUSED: _("Security event of the provider refused"),
    Action.SIGNAL_STREAM_CHANGED: _("Stream of security events changed"),
    Action.SESSION_RENEWED: _("Session renewed"),
    Action.SESSION_ENDED: _("Session ended"),
    Action.SESSION_END_REQUESTED: _("End of many sessions requested"),
    Action.TOKEN_REVOKED: _("Token revoked"),
    Action.TOKEN_REVOCATION_FAILED: _("Revocation failed"),
    Action.CLAIM_STORED: _("Personal data stored"),
    Action.CLAIM_REVEALED: _("Personal data disclosed"),
    Action.CLAIM_OVERFETCHED: _("Unrequested personal data dropped"),
    Action.CLAIM_SCRUBBED: _("Personal data erased"),
    Action.HOLD_PLACED: _("Legal hold placed"),
    Action.HOLD_RELEASED: _("Legal hold released"),
    Action.RETENTION_KEY_UNUSED: _("Retention key no longer needed"),
    Action.RETENTION_KEY_DESTROYED: _("Retention key destroyed"),
    Action.SUBJECT_LINKED: _("Person linked to an account"),
    Action.SUBJECT_UNLINKED: _("Person unlinked from the account"),
    Action.SUBJECT_EXPORTED: _("Data of a person exported"),
    Action.SUBJECT_ACCOUNTED: _("Disclosures listed for a person"),
    Action.SUBJECT_ERASED: _("All data of a person erased"),
    Action.ACTIVATION_ISSUED: _("Activation code created"),
    Action.ACTIVATION_REDEEMED: _("Activation code redeemed"),
    Action.ACTIVATION_REFUSED: _("Activation code refused"),
    Action.ACTIVATION_REVOKED: _("Activation code revoked"),
    Action.ROLE_CHANGED: _("Roles changed"),
    Action.ACCESS_GRANTED: _("Access granted"),
    Action.ACCESS_DENIED: _("Access refused"),
    Action.API_REFUSED: _("API request refused"),
    Action.EMERGENCY_OPENED: _("Emergency access opened"),
    Action.EMERGENCY_CLOSED: _("Emergency access closed"),
    Action.EMERGENCY_EXPIRED: _("Emergency access expired"),
    Action.EMERGENCY_REVIEWED: _("Emergency access reviewed"),
    Action.EMERGENCY_REFUSED: _("Emergency access refused"),
    Action.AUDIT_VIEWED: _("Audit log viewed"),
    Action.AUDIT_EXPORTED: _("Audit log exported"),
    Action.AUDIT_VERIFIED: _("Audit log verified"),
    Action.AUDIT_ARCHIVED: _("Audit log archived"),
    Action.AUDIT_RESTORED: _("Audit log continued after a restore"),
    Action.AUDIT_SET_ASIDE: _("Events that were set aside retried or dropped"),
    Action.ALERT_RAISED: _("Security alert raised"),
    Action.ALERT_ACKNOWLEDGED: _("Security alert acknowledged"),
    Action.ALERT_MUTED: _("Security alerts muted"),
    Action.ALERT_UNMUTED: _("Mute of security alerts ended"),
    Action.DELIVERY_REQUESTED: _("Delivery of the audit log requested"),
    Action.CONFIGURATION_CHANGED: _("Configuration changed"),
    Action.SCIM_USER_CREATED: _("User created by SCIM"),
    Action.SCIM_USER_CHANGED: _("User changed by SCIM"),
    Action.SCIM_USER_DISABLED: _("User disabled by SCIM"),
    Action.SCIM_USER_ENABLED: _("User enabled by SCIM"),
    Action.SCIM_USER_DELETED: _("User deleted by SCIM"),
    Action.SCIM_GROUP_CHANGED: _("Group changed by SCIM"),
    Action.SCIM_CLIENT_CHANGED: _("SCIM client changed"),
    Action.SCIM_REFUSED: _("SCIM request refused"),
}

ACTION_EXPLANATIONS: Mapping[str, str] = {
    Action.LOGIN_SUCCEEDED: _("A user signed in."),
    Action.LOGIN_REFUSED: _("A sign-in did not satisfy a rule, so no session was created."),
    Action.LOGOUT_COMPLETED: _("A user signed out of the portal."),
    Action.LOGOUT_RECEIVED: _(
        "The provider reported that a user signed out or was "
        "locked there, and the sessions ended here too."
    ),
    Action.LOGOUT_REFUSED: _(
        "A sign-out request from the provider was not valid, so no session was ended."
    ),
    Action.SIGNAL_RECEIVED: _(
        "The provider reported a security event, such as the end of a session there."
    ),
    Action.SIGNAL_REFUSED: _(
        "A security event from the provider was not valid, so it had no effect."
    ),
    Action.SIGNAL_STREAM_CHANGED: _(
        "An operator changed which security events the provider sends."
    ),
    Action.SESSION_RENEWED: _("A signed-in user authenticated again at the provider."),
    Action.SESSION_ENDED: _("A session ended and cannot be used any more."),
    Action.SESSION_END_REQUESTED: _("A user requested the end of many sessions."),
    Action.TOKEN_REVOKED: _(
        "The provider revoked a token of an ended session or of a refused sign-in."
    ),
    Action.TOKEN_REVOCATION_FAILED: _("The provider did not revoke a token at this attempt."),
    Action.CLAIM_STORED: _("Personal data from the provider was stored in encrypted form."),
    Action.CLAIM_REVEALED: _(
        "Stored personal data was decrypted and shown for the recorded purpose."
    ),
    Action.CLAIM_OVERFETCHED: _(
        "The provider sent personal data that the portal does not use, and it was dropped."
    ),
    Action.CLAIM_SCRUBBED: _("Stored personal data was erased."),
    Action.HOLD_PLACED: _("The stored data of a person must be kept until the legal hold ends."),
    Action.HOLD_RELEASED: _("A legal hold was released before its end."),
    Action.RETENTION_KEY_UNUSED: _(
        "No stored data needs this key any more, so it is going to be destroyed."
    ),
    Action.RETENTION_KEY_DESTROYED: _(
        "The key was destroyed, so erased data is unreadable in backups too."
    ),
    Action.SUBJECT_LINKED: _("The identity of a person at the provider was linked to an account."),
    Action.SUBJECT_UNLINKED: _(
        "The link was deleted, the sessions were ended and the stored data was erased."
    ),
    Action.SUBJECT_EXPORTED: _(
        "All stored data of a person was exported for the recorded purpose."
    ),
    Action.SUBJECT_ACCOUNTED: _("A list of the disclosures of a person’s record was shown."),
    Action.SUBJECT_ERASED: _("All stored data of a person was erased on request."),
    Action.ACTIVATION_ISSUED: _("An activation code was created for an account."),
    Action.ACTIVATION_REDEEMED: _(
        "A person entered the activation code and was linked to its account."
    ),
    Action.ACTIVATION_REFUSED: _("An activation code was not accepted, so no account was linked."),
    Action.ACTIVATION_REVOKED: _("An unused activation code can no longer be redeemed."),
    Action.ROLE_CHANGED: _(
        "The groups, permissions or status of an account, or the permissions of a group, changed."
    ),
    Action.ACCESS_GRANTED: _("A user was permitted to view a protected record or page."),
    Action.ACCESS_DENIED: _("A user was not permitted to view a record, personal data or a page."),
    Action.API_REFUSED: _("An API of the portal did not accept the access token of a request."),
    Action.EMERGENCY_OPENED: _("A user opened emergency access without the usual permission."),
    Action.EMERGENCY_CLOSED: _("Emergency access was closed before its end."),
    Action.EMERGENCY_EXPIRED: _("Emergency access reached its end."),
    Action.EMERGENCY_REVIEWED: _(
        "Another person reviewed the emergency access and recorded a verdict."
    ),
    Action.EMERGENCY_REFUSED: _("Emergency access was not opened, or its review was not accepted."),
    Action.AUDIT_VIEWED: _("A user viewed a page of the audit log."),
    Action.AUDIT_EXPORTED: _("Events or an evidence pack were exported as a file."),
    Action.AUDIT_VERIFIED: _("The audit log was compared with its signed checkpoints."),
    Action.AUDIT_ARCHIVED: _("A part of the audit log was written to an archive file."),
    Action.AUDIT_RESTORED: _(
        "An administrator declared that the audit log continues after a restore from a backup."
    ),
    Action.AUDIT_SET_ASIDE: _(
        "An operator retried or dropped events that a reader of the audit log had set aside."
    ),
    Action.ALERT_RAISED: _(
        "The portal found something that an officer or operator should look at."
    ),
    Action.ALERT_ACKNOWLEDGED: _("An officer looked at a security alert and closed it."),
    Action.ALERT_MUTED: _("Alerts of this kind are recorded but not sent for a time."),
    Action.ALERT_UNMUTED: _("Alerts of this kind are sent again."),
    Action.DELIVERY_REQUESTED: _("A user requested the delivery of waiting events to a collector."),
    Action.CONFIGURATION_CHANGED: _("The settings of a server differ from those it had before."),
    Action.SCIM_USER_CREATED: _(
        "A SCIM client of the provider created a user, with a new account or a known one."
    ),
    Action.SCIM_USER_CHANGED: _("A SCIM client of the provider changed attributes of a user."),
    Action.SCIM_USER_DISABLED: _(
        "A SCIM client disabled an account: its sessions ended and its tokens are revoked."
    ),
    Action.SCIM_USER_ENABLED: _("A SCIM client enabled an account that it had disabled."),
    Action.SCIM_USER_DELETED: _(
        "A SCIM client deleted a user, whose account is disabled and stays."
    ),
    Action.SCIM_GROUP_CHANGED: _("A SCIM client created, changed or deleted a group."),
    Action.SCIM_CLIENT_CHANGED: _("A SCIM client was created or revoked, or got a new token."),
    Action.SCIM_REFUSED: _("A request of a SCIM client was not accepted."),
}
