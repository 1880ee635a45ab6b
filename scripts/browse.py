"""The same as `video-mvit browse`, from a checkout."""

from video_mvit.cli import main

if __name__ == "__main__":
    main("browse")
