"""Sign-in: from the authorization request to a session, or to a refusal after which all issued
tokens are revoked.
"""
