"""Cost of erasing due claims compared with one bare DELETE, and latency of a concurrent reader."""
