"""What an operator should know before anybody else finds out: anomalies, and whether a provider is as we need it."""
