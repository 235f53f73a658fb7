"""Sign model packages: ``python -m examples.training.sign --keys DIR FOLDER...``.

Writes ``model-card.json.sig``, a DSSE envelope over the card's exact bytes, by the key folder's model key; and prints
the public key, which a release names under ``trust.model_keys``. Refuses a package whose files do not have the digests
that its card lists. ``--init`` makes a development key folder first. The private key never enters the repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.training.files import write
from nwmctl.app.clock import SystemClock
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.keys import KeyRole
from nwmctl.domain.model import CARD_NAME, SIGNATURE_NAME
from nwmctl.formats import model_card
from nwmctl.trust.dsse import MODEL_CARD_TYPE, sign_dsse, verify_dsse
from nwmctl.trust.keys import Signer, init_keys, load_keyring


def sign(folder: Path, signer: Signer) -> None:
    """Sign one package. Raises ValueError if a file is not what the card says."""
    data = (folder / CARD_NAME).read_bytes()
    card = model_card.decode(data, CARD_NAME)
    for role, entry in card.files.items():
        if digest_bytes((folder / entry.path).read_bytes()) != entry.digest:
            raise ValueError(f"{entry.path} ({role}) does not have the digest that the card lists")
    envelope = sign_dsse(data, MODEL_CARD_TYPE, signer)
    verify_dsse(envelope, MODEL_CARD_TYPE, [signer.public])
    write(folder / SIGNATURE_NAME, envelope)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=Path, required=True, help="key folder with a model key")
    parser.add_argument("--init", action="store_true", help="make the key folder (development keys)")
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args()
    if given.init:
        init_keys(given.keys, SystemClock(), [KeyRole.MODEL], development=True)
    signer = load_keyring(given.keys).signer(KeyRole.MODEL)
    for folder in given.folders:
        sign(folder, signer)
    print(signer.public)


if __name__ == "__main__":
    main()
