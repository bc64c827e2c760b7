"""What it takes to erase the claims that are due, beside one bare DELETE, and what a reader waits for meanwhile."""
