"""An atlas of many made-up pictures, built into the folder OUT with checkpoints all the time (see `prepared`)."""

import runpy
from pathlib import Path

from fluxtionary.interpretation.build import build_atlas

streams = runpy.run_path(str(Path(__file__).with_name("streams.py")))
pictures = streams["MadeUpPictures"](3000, 64, grid=(8, 8), batch=20)
build_atlas(pictures, streams["plain_dictionary"](64), globals()["OUT"], progress=False, every_seconds=0.2)
