"""The audit log at several sizes: what grows with it, and what detaching a partition and converting the log cost."""
