"""Periodic tasks, lists and mass logouts in the database of a hospital, which `generate_series` builds."""
