"""File suffixes of videos and images."""

# Of a video in several forms, the first in this order is taken.
VIDEO_SUFFIXES = (
    ".mp4",
    ".mkv",
    ".webm",
    ".avi",
    ".mov",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".3gp",
)


PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png")
