"""``python -m scenarios.cli``."""

from . import main

main()
