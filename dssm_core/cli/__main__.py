"""`python -m dssm_core.cli`."""

import sys

from dssm_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
