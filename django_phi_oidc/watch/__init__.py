"""What an operator should know before anybody else finds out: so far, whether a provider is as we need it."""
