"""`python -m bandit_service.cli`, as `bandit-service`."""

import sys

from bandit_service.cli import main

sys.exit(main())
