"""An app of a host project, with a table that is shaped as that of our claims is."""
