"""python -m trainer.encoder: the same command without the rest of the trainer."""

from __future__ import annotations

import sys

from trainer.encoder import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
