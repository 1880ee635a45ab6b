"""The same as `video-mvit predict`, from a checkout."""

from video_mvit.cli import main

if __name__ == "__main__":
    main("predict")
