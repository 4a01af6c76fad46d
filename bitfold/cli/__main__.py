"""``python -m bitfold.cli``."""

import sys

from bitfold.cli.app import main

sys.exit(main())
