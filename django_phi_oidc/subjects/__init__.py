"""Users and the pairwise subjects that identify them: (issuer, `sub`), not by an e-mail address or
a name.

`pairwise.get_pairwise_id(user, sector)` returns the identifier of a user for another system,
different for each system.
"""
