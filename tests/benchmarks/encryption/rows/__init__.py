"""An app of a host project with a table like that of stored claims."""
