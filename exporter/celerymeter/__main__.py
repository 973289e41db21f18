"""``python -m celerymeter``."""

from __future__ import annotations

import sys

from celerymeter.cli import main

sys.exit(main())
