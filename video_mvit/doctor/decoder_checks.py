"""What `doctor.py` says of decoders: each reads a video whose frames show their number."""

from __future__ import annotations

from typing import Any, Mapping  # noqa: UP035

from video_mvit.doctor.finding import Finding
from video_mvit.doctor.software_checks import INSTALL

NO_FFMPEG = "does not find FFmpeg"
FEW_KEY_FRAMES = 100  # frames for each; a clip in the middle then costs much decoding
READERS = ("pyav", "decord", "torchcodec")  # the default comes first
PACKAGES = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec"}
Facts = Mapping[str, Any]


def check_written(
    reader: str, facts: Facts, version: str | None, pins: Mapping[str, str]
) -> Finding:
    """A reader on the video written on the spot.

    Args:
        facts: of `probes.read_numbered`.
        version: of its package, None where it is not installed.
    """
    package = PACKAGES[reader]
    pinned = f"{package}=={pins[package]}" if package in pins else package
    is_default = reader == READERS[0]
    if version is None and not is_default:
        return Finding("ok", reader, "not installed; only data.reader=" + reader + " needs it")
    bad = "problem" if is_default else "warning"
    again = f"{INSTALL} --force-reinstall {pinned}"
    if NO_FFMPEG in str(facts.get("failure")):
        text = f"{version}, does not find FFmpeg's shared libraries; data.reader=pyav needs none"
        return Finding(bad, reader, text, "apt-get install ffmpeg (or conda install ffmpeg)")
    if "failure" in facts:
        return Finding(bad, reader, f"reads nothing: {facts['failure']}", again)
    if facts["shown"] != facts["wanted"]:
        text = f"{version}, gives wrong frames: {facts['shown']} for {facts['wanted']}"
        return Finding(bad, reader, text, again)
    return Finding("ok", reader, f"{version}, gives the frames it is asked for (H.264, B-frames)")


def check_file(path: str, facts: Facts) -> Finding:
    """One of the user's files, from `probes.examine`."""
    reason = facts.get("failure") or facts.get("reason")
    if reason:
        step = f"ffmpeg -v error -i {path!r} -f null - (what FFmpeg says of it), then get it again"
        return Finding("problem", "video", f"{path}: {reason}", step)
    text = f"{path}: {facts['num_frames']} frames of {facts['width']}x{facts['height']}, "
    text += f"{facts['fps']:.4g} fps, {facts['codec']}"
    if facts["num_frames"] > FEW_KEY_FRAMES * max(facts["num_key_frames"], 1):
        text += f"; only {facts['num_key_frames']} key frames, so that a clip takes long to decode"
        return Finding(
            "warning",
            "video",
            text,
            "video-mvit prepare data=custom data.root=FOLDER mode=transcode output=COPY",
        )
    return Finding("ok", "video", text)


def check_other_reader(reader: str, path: str, facts: Facts) -> Finding | None:
    """Another reader on one of the user's files, from `probes.compare_with_default`."""
    reason = facts.get("failure") or facts.get("reason")
    if reason is None:
        return None
    return Finding("warning", reader, f"{path}: {reason}", "use data.reader=pyav, which reads it")


def check_folder(place: str, facts: Facts) -> Finding | None:
    """That there are videos at all, from `probes.find_videos`."""
    if "failure" in facts:
        step = f"ls -l {place!r} (may it be read?)"
        return Finding("problem", "video", f"{place}: {facts['failure']}", step)
    if facts["paths"]:
        return None
    text = f"{place} holds no video file ({' '.join(facts['suffixes'])})"
    return Finding("problem", "video", text, "give the folder that holds them: --video FOLDER")
