"""Who looked at a person's record, for what, and when. Spec: 45 CFR 164.528.

`views.AccountingMixin` is the person's own page of it, `phi_oidc subject accounting` the operator's.
"""
