"""Declared claims, stored encrypted: minimization, disclosure, retention and legal holds.

`disclosure.reveal(actor, user, name, purpose=…)` returns a value and `disclosure.reveal_many` those of a list; a
`masking.MaskedClaim` is what a template shows until then. `views.RevealMixin` and `forms.PurposeForm` make a page that
asks for a purpose first.
"""
