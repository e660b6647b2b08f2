"""Two commits of kdops on this machine, timed in turn."""
