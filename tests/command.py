"""`fluxtionary ARGUMENTS`, in a process of its own (see `prepared`)."""

import sys

from fluxtionary.cli import main

sys.argv = ["fluxtionary", *globals()["ARGUMENTS"]]
main()
