"""The demo: one person's life by HTTP, on real parts."""
