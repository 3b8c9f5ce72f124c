"""`python -m conceptlab.cli`."""

import sys

from .main import main

sys.exit(main())
