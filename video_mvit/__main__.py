"""`python -m video_mvit VERB`, which is also what torchrun starts."""

from video_mvit.cli import main

if __name__ == "__main__":
    main()
