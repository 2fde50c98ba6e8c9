"""`python -m uvs` is the command line `uvs`."""

from uvs.cli import main

if __name__ == "__main__":
    main()
