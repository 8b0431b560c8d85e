"""`python -m sovchain.cli` is the `sovchain` command."""

from sovchain.cli import main

if __name__ == "__main__":
    main()
