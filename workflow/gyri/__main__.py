"""`python -m gyri`: the command line."""

from gyri.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
