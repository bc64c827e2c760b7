"""An app of a host project with sealed columns of its own, in tables of every shape."""
