"""`python -m inference.commands` is `pyro-rnp`, where the latter is not on the path."""

import sys

from inference.commands import main

if __name__ == "__main__":
    sys.argv[0] = "pyro-rnp"
    main()
