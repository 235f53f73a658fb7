"""Records the drive log of the example release: 60 drives of the simulator's expert, 7 km, said to be simulated.

    python -m examples.judges.record_drives [LOG]

The same drives every time. Its owner then signs it once (`nwmctl judge sign-log`). A fleet's own log comes from its own
recorder: ``nwmctl.validation.judges.drive_log.write_log`` takes any rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nwmctl.domain.model import CARD_NAME
from nwmctl.driving.scenarios import paired
from nwmctl.formats import model_card
from nwmctl.validation.judges.record import record_expert

EXAMPLE = Path(__file__).parents[1] / "nwm-2.5"
DRIVES = 60
SEED = 9_100_000
"""Neither trained, nor tuned, nor tested on."""


def main(log: Path) -> None:
    contract = model_card.decode((EXAMPLE / "model" / CARD_NAME).read_bytes(), CARD_NAME).contract
    log.parent.mkdir(parents=True, exist_ok=True)
    record_expert(log, contract, paired(DRIVES, SEED))
    print(f"wrote {log}, {log.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE / "logs" / "drives.parquet")
