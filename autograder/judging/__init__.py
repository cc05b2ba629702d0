"""What a submission earns: the worker that runs it, the examiner that judges it, and the notebook that shows it."""
