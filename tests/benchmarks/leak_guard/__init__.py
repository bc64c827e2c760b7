"""Cost of the leak guard per page."""
