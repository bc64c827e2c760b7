"""The attack kit: attacks a host project and checks that it refuses them. Never for production."""
