"""What was used once is refused the second time, on any server."""
