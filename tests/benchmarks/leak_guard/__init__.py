"""What the leak guard costs a page."""
