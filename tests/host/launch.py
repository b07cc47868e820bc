"""Starts ComfyUI: `python launch.py COMFYUI_FOLDER OPTION...`, where its torchvision may be half there.

torchvision's compiled operators do not load beside a CPU build of torch, and importing it then fails; nothing here
uses them, so their schemas are enough.
"""

import runpy
import sys


def declare_missing_operators() -> None:
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_kept"] = library  # definitions live as long as their library


if __name__ == "__main__":
    folder = sys.argv[1]
    declare_missing_operators()
    sys.path.insert(0, folder)
    sys.argv = [f"{folder}/main.py", *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
