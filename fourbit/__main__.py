"""`python -m fourbit` is the `fourbit` command."""

from fourbit.cli import main

if __name__ == "__main__":
    main()
