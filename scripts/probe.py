"""The same as `video-mvit probe`, from a checkout."""

from video_mvit.cli import main

if __name__ == "__main__":
    main("probe")
