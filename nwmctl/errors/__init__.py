"""All refusals, by name: one hierarchy, one class per distinct refusal, grouped by room.

Import them from here. What an error carries and which exit code it has is said in ``base``.
"""

from __future__ import annotations

from nwmctl.errors.agent import *
from nwmctl.errors.app import *
from nwmctl.errors.base import *
from nwmctl.errors.certificate import *
from nwmctl.errors.compiler import *
from nwmctl.errors.deltas import *
from nwmctl.errors.documents import *
from nwmctl.errors.driving import *
from nwmctl.errors.fleet import *
from nwmctl.errors.judges import *
from nwmctl.errors.keys import *
from nwmctl.errors.publishing import *
from nwmctl.errors.remote import *
from nwmctl.errors.sources import *
from nwmctl.errors.storage import *
from nwmctl.errors.toolchains import *
from nwmctl.errors.trust import *
from nwmctl.errors.validation import *
