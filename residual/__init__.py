"""The residual stream of Flux: sites, edits, taps, plans, and the hosts that run them.

This room stands on `dictionaries` alone. Only `diffusers_host` and `comfy_host` know a host.
"""

from .edits import Ablate, Add, Clamp, Gate, Record, Splice, Tap
from .moment import ALWAYS, Moment, PlanError, Row, Schedule, Window
from .plan import Plan, Run
from .site import Site, SiteError

__all__ = [
    "ALWAYS",
    "Ablate",
    "Add",
    "Clamp",
    "Gate",
    "Moment",
    "Plan",
    "PlanError",
    "Record",
    "Row",
    "Run",
    "Schedule",
    "Site",
    "SiteError",
    "Splice",
    "Tap",
    "Window",
]
