"""Declared claims, stored encrypted: minimization, disclosure, retention and legal holds.

`disclosure.reveal(actor, user, name, purpose=…)` returns one value, `disclosure.reveal_many` many.
Templates show a `masking.MaskedClaim` instead. `views.RevealMixin` and `forms.PurposeForm` build a
page that asks for a purpose first.
"""
