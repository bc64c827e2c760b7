"""The sealed order of the trail goes out: to a SIEM, an audit repository or a file, at least once and in order."""
