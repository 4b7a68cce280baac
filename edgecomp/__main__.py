"""`python -m edgecomp`: the same as the `edgecomp` command."""

import sys

from edgecomp.cli import main

sys.exit(main())
