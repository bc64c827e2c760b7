"""Measures how soon a disabled person is out: from the SCIM request to the refused request and the revoked tokens."""
