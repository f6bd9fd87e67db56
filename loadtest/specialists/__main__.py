"""See `loadtest.specialists.recorder`, which the processes that ask import by its name."""

import sys

from loadtest.specialists.recorder import main

if __name__ == "__main__":
    sys.exit(main())
