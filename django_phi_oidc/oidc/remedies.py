"""What an operator can do about an error code, for the log, the admin and the doctor. Never shown
to other users.

docs/how-to/troubleshooting.md has those that a portal meets in operation.
"""

from collections.abc import Mapping

_ = str  # Marks a text for makemessages; the admin translates it.
_WRONG_CLIENT = _(
    "client_id, client_secret, client_keys or client_certificate, and token_endpoint_auth_method "
    "must be those of the registration."
)
_REDIRECT_URI = _(
    "Register the redirect URI of the portal at the provider. phi_oidc doctor --portal names it."
)
_PROOF_OF_POSSESSION = _(
    "Declare dpop: require if the client is registered for DPoP "
    "(sender-constrained tokens), never if it is not."
)
_START_AGAIN = _(
    "The user should start again, in one browser with cookies. If many users are affected: a proxy "
    "that drops cookies or repeats requests, or servers with different encryption keys."
)
_CLOCKS = _(
    "Set the clocks of the portal and of the provider by NTP. phi_oidc doctor compares them."
)
_MORE_PROOF = _(
    "The user needs a second factor at the provider, or has to sign out there first. If all users "
    "are affected, the provider does not comply with acr_values, vtr or max_age, or names another "
    "acr, vot or amr than is accepted."
)
_PROVIDER_LOG = _(
    "Look into the provider's own log at the time of this event. Run phi_oidc doctor with --portal."
)

REMEDIES: Mapping[str, str] = {
    # R1, R2: the provider cannot be reached, or its metadata does not fit the declaration
    "transport_not_https": _(
        "Declare an https issuer. allow_loopback_http is for development on loopback."
    ),
    "transport_redirect": _("Declare the issuer that the provider redirects to."),
    "transport_unreachable": _("Check the host name of the issuer, DNS, the firewall, and proxy."),
    "transport_timeout": _("Check the network, and the load of the provider."),
    "transport_tls": _(
        "The provider must fix its certificate, or set ca_bundle to the file of its CA. `check` "
        "reports a client_certificate that cannot be used."
    ),
    "provider_unavailable": _(
        "Wait, and look at the provider's status page: it answers 429 or 5xx."
    ),
    "provider_suspended": _("Check the network, and the load of the provider."),
    "metadata_invalid": _(
        "Check the issuer: its /.well-known/openid-configuration must be a JSON object."
    ),
    "issuer_mismatch": _(
        "Declare the issuer exactly as in the metadata, if this is the intended provider."
    ),
    "pairwise_unsupported": _(
        "Ask the provider for pairwise subjects, or declare "
        "subject_type: public, which `check` reports."
    ),
    "alg_unsupported": _("Register the client with an allowed algorithm, or allow an offered one."),
    "revocation_unsupported": _(
        "Ask the provider for RFC 7009, or declare revocation: best_effort, which `check` reports."
    ),
    "par_unsupported": _("Ask the provider for RFC 9126, or declare par: auto."),
    "dpop_unsupported": _("Ask the provider for RFC 9449, or declare dpop: auto or never."),
    "profile_unsupported": _(
        "Ask the provider for what the profile requires, such as RFC 9207, or declare baseline."
    ),
    "entity_statement_invalid": _(
        "Check trust_anchor_keys, and the clocks by NTP. If they are "
        "correct, ask the operator of the federation."
    ),
    "trust_chain_invalid": _(
        "Check trust_anchor. The provider must be a member of that "
        "federation. phi_oidc doctor shows the chain."
    ),
    "metadata_policy_error": _(
        "Ask the provider, or the operator of the federation: only they can correct it."
    ),
    "key_not_found": _(
        "The provider must publish the key that it signs with. phi_oidc doctor compares them."
    ),
    "encryption_undeclared": _(
        "Declare id_token_encrypted_response_alg, or register the "
        "client without encryption of ID Tokens."
    ),
    "encryption_missing": _(
        "Register the client with "
        "id_token_encrypted_response_alg, or remove it from the declaration."
    ),
    "decryption_failed": _(
        "The provider must encrypt with a key of the portal's "
        "jwks.json, and name its kid if there are several."
    ),
    # R3 to R5: the provider refuses the client; by its own error code, if it sends a registered one
    "par_error": _PROVIDER_LOG,
    "par_error invalid_request": _REDIRECT_URI,
    "token_error": _PROVIDER_LOG,
    "invalid_grant": _(
        "The code or refresh token had expired or was used: the user should sign in again. If all "
        "sign-ins fail, run phi_oidc doctor, which compares the "
        "clocks, and see whether the client must use DPoP."
    ),
    "token_type_unsupported": _PROOF_OF_POSSESSION,
    "access_token_lifetime": _(
        "Ask the provider for shorter access tokens, or raise max_access_token_lifetime."
    ),
    "provider_error": _PROVIDER_LOG,
    "invalid_client": _WRONG_CLIENT,
    "invalid_redirect_uri": _REDIRECT_URI,
    "unauthorized_client": _(
        "Allow the client the grant types authorization_code and refresh_token at the provider."
    ),
    "unsupported_grant_type": _(
        "Allow the client the grant types authorization_code and refresh_token."
    ),
    "invalid_target": _(
        "Register resource, the URI of the API, for this client at the provider, or correct it."
    ),
    "invalid_scope": _(
        "Register the client for the scopes of the declared claims, or remove these from CLAIMS."
    ),
    "invalid_dpop_proof": _PROOF_OF_POSSESSION,
    "use_dpop_nonce": _PROOF_OF_POSSESSION,
    "unsupported_token_type": _(
        "The provider cannot revoke this type of token. Ask it for short-lived access tokens."
    ),
    "access_denied": _(
        "The user cancelled, or the provider refused the user: ask its support, with the time."
    ),
    "server_error": _("Ask the provider's support, with the time."),
    "temporarily_unavailable": _("Ask the provider's support, with the time."),
    "unmet_authentication_requirements": _MORE_PROOF,
    # R4: the browser returned without its pending sign-in
    **dict.fromkeys(
        ("state_missing", "state_unknown", "state_expired", "state_replayed"), _START_AGAIN
    ),
    **dict.fromkeys(("parameter_repeated", "code_missing", "logged_out"), _START_AGAIN),
    # R6, R7: the ID Token does not fit the declaration
    "alg_not_allowed": _(
        "Register the client with an algorithm of id_token_signed_response_alg, or allow this one."
    ),
    "aud_invalid": _("client_id must be that of the registration."),
    **dict.fromkeys(("exp_invalid", "iat_invalid", "nbf_invalid"), _CLOCKS),
    "sub_not_pairwise": _("Register the client with subject_type pairwise at the provider."),
    **dict.fromkeys(("acr_insufficient", "vot_insufficient", "amr_insufficient"), _MORE_PROOF),
    **dict.fromkeys(("auth_time_missing", "auth_time_stale"), _MORE_PROOF),
    "vtm_invalid": _(
        "vtm must be the trust mark that the provider documents, which ID Tokens name."
    ),
    # The account
    "provider_unknown": _("Correct the link: its provider is not declared in PROVIDERS."),
    "claim_missing": _(
        "Correct the name of the claim in CLAIMS, allow the client "
        "its scope, or declare it without essential."
    ),
    "subject_key_missing": _(
        "Add the former subject key to KEYS['subject'] again: `check` names it."
    ),
    "not_provisioned": _(
        "Verify the identity of the caller, then link the account: phi_oidc subject link."
    ),
    "email_match_refused": _(
        "Verify the identity of the caller, then link the "
        "account; `match` says why its address did not."
    ),
    "user_inactive": _(
        "Verify the identity of the caller, then activate the account, or leave it inactive."
    ),
    "account_not_saved": _(
        "Read the line of the log that names the exception. Override create_user."
    ),
    "subject_altered": _("Inform the security team: the link was changed in the database."),
    "subject_changed": _(
        "The user should sign out at the provider, and try again with the same account."
    ),
    # The portal itself
    "audit_unavailable": _(
        "Restore the audit database phi_audit: without it nothing is permitted."
    ),
    "key_missing": _("Set the list of keys that the log names, in every process of the portal."),
    "declaration_invalid": _(
        "Correct the option that the log names. manage.py check names it, too."
    ),
    "internal_error": _("Read the exception, which Django reports."),
}
"""By rule code, by the provider's error code, or by both, separated by a space."""
SEE_MANUAL = _('See "Troubleshooting" in the manual.')


def get_remedy(code: str, provider_error: str = "") -> str:
    """Return what to do, in English, or where the manual says how to find it out. Arguments as of
    find_remedy.
    """
    return find_remedy(code, provider_error) or SEE_MANUAL


def find_remedy(code: str, provider_error: str = "") -> str:
    """Return what to do, in English; empty if only the circumstances can show it.

    code: a rule code. provider_error: a registered code, `other` or empty.
    """
    keys = (f"{code} {provider_error}", provider_error, code)
    return next((REMEDIES[key] for key in keys if key in REMEDIES), "")
