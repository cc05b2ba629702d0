"""What stops a build of the site."""


class StageError(Exception):
    """The message names the file, the fault and the remedy."""
