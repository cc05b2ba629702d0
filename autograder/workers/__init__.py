"""Where submissions run: processes of this machine, forked from a warm one, or seats of a cluster."""
