"""`python -m lae_fast` is `lae-fast`."""

import sys

from lae_fast.cli import main

sys.exit(main())
