"""Whether a vehicle has what the bundle that it is owed requires, as it last reported.

The law is ``domain.requires.unmet``; here it is asked of what the database knows. A vehicle that lacks something is
deferred with the reason and asked again at its next poll, so that it is offered the bundle as soon as it reports what
it lacked. Going back by a slot needs no bundle and is never held up. Reads only.
"""

from __future__ import annotations

import json

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.requires import unmet
from nwmctl.fleet.consequences import InstallMode
from nwmctl.fleet.releases import enabled_bundle
from nwmctl.formats.ddi import reported
from nwmctl.storage.database import Reader


def lacking(reader: Reader, assignment: int) -> str:
    """What the assignment's vehicle lacks for its bundle, in words; '' if nothing."""
    row = reader.one(
        "SELECT a.mode, c.kind, c.release_sequence, a.platform, v.variant, v.attributes FROM assignment a "
        "JOIN campaign c ON c.id = a.campaign_id JOIN vehicle v ON v.vin = a.vin WHERE a.id = :assignment",
        assignment=assignment,
    )
    if row is None or InstallMode(row[0]) is not InstallMode.BUNDLE:
        return ""
    bundle = enabled_bundle(reader, row[2], BundleKind(row[1]), row[3])
    if bundle is None:
        return ""
    return "; ".join(unmet(bundle.requires, row[4], reported(json.loads(row[5]))))
