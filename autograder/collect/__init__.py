"""From what a learning management system gives out to ``submitted/``: who handed in what, and when.

`archives` and `paths` list what may be hostile without unpacking it, `layouts` and `sorting` tell pieces apart by their
names, `roster` says whose they are, `unpack` reads one attempt within bounds, `attempts` keeps every attempt and says
which counts, `receipts` is the account of it that grading reads. `collector` does all of it in order.
"""
