"""Rights of the individual: export, erasure, and the accounting of disclosures (45 CFR 164.524,
164.528; GDPR 15, 17).

`views.AccountingMixin` is the person's own page of the accounting, `phi_oidc subject accounting`
the operator's.
"""
