"""Read videos ahead, and group as many as fill a forward pass."""

from collections.abc import Iterator, Sequence

from video_mvit.data.dataset import ClipPipeline
from video_mvit.data.reading.open import VideoDecodeError
from video_mvit.host import num_usable_cores
from video_mvit.prediction.background import map_ahead
from video_mvit.prediction.clips import VideoClips, read_clips

MAX_THREADS = 4  # decoding threads
Found = tuple[str, VideoClips | str]  # a video, and its clips or why it has none


def read_groups(
    videos: Sequence[str], pipeline: ClipPipeline, num_clips: int
) -> Iterator[list[Found]]:
    """Yield all videos in order, in groups of at least `num_clips` clips, except the last.

    An unreadable video comes with the reason.
    """
    num_threads = max(1, min(MAX_THREADS, num_usable_cores()))
    group: list[Found] = []
    num_waiting = 0
    for video, found in map_ahead(
        lambda video: _read(video, pipeline), videos, num_threads=num_threads
    ):
        group.append((video, found))
        num_waiting += len(found.clips) if isinstance(found, VideoClips) else 0
        if num_waiting >= num_clips:
            yield group
            group, num_waiting = [], 0
    if group:
        yield group


def _read(video: str, pipeline: ClipPipeline) -> VideoClips | str:
    try:
        return read_clips(video, pipeline)
    except VideoDecodeError as error:
        return error.reason
