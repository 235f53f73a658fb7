"""One file per step: typed input to typed output. Steps mint content-store keys and join the crafts."""
