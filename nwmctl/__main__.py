"""``python -m nwmctl``: the same as the command ``nwmctl``."""

from nwmctl.cli.app import main

main()
