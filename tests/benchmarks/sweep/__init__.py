"""Rates of the revocation sweep, of a back-channel logout of many sessions, and of a bulk end."""
