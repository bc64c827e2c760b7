"""The attack kit: what lies to a host project on purpose, to see that it is refused. Never for production."""
