"""The same as `video-mvit doctor`, from a checkout, also where nothing is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from video_mvit.cli import main

if __name__ == "__main__":
    main("doctor")
