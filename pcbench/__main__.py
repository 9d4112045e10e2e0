"""`python -m pcbench`."""

from pcbench.cli import main

if __name__ == "__main__":
    main()
