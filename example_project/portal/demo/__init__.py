"""The demo: a patient's use of the portal over HTTP, with real processes."""
