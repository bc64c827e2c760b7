"""Sessions at the OP, their only way out, and the revocation of what they held."""
