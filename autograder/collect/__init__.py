"""From what a learning management system gives out to ``submitted/``: who handed in what, and when.

`archives` and `paths` read what may be hostile, `layouts` tells whose it is from names, `roster` from the course's
own lists, `attempts` keeps every attempt and says which counts, `receipts` is the account of it that grading reads.
"""
