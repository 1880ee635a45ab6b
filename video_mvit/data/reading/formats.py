"""File suffixes: the one table of what counts as a video, a picture or a frame.

Class folders, lists, patterns, prediction, preparation and the doctor all use it. The content of a
file decides how it is read, never its suffix.
"""

# Of a video in several forms, the first in this order is taken where a list names no suffix. All
# are of containers in `containers.FORMATS`.
VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"),
    # more names of MP4 and QuickTime
    *(".3g2", ".3gpp", ".f4v", ".insv", ".ism", ".ismv", ".mj2", ".mp4v", ".mpg4", ".qt"),
    # broadcasts, camcorders, DVDs and plain MPEG
    *(".ts", ".mts", ".m2ts", ".m2t", ".trp", ".vob", ".evo", ".mod", ".tod", ".mpe"),
    *(".m1v", ".m2v", ".m2p", ".mpv"),
    # others of Matroska, AVI, ASF, Ogg and RealMedia
    *(".mk3d", ".divx", ".xvid", ".asf", ".ogv", ".ogg", ".ogm", ".rm", ".rmvb"),
    *(".gif", ".apng", ".mxf", ".dv", ".dif", ".nut", ".ivf", ".obu"),
    # raw streams
    *(".h264", ".264", ".avc", ".h26l", ".h265", ".265", ".hevc"),
)
# PNG comes last: a PNG beside another picture of its name is often the mask of that.
PICTURE_SUFFIXES = (".jpeg", ".jpg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".png")
# Lists, reports and notes beside class folders, which nobody expects to be read as videos.
NOTE_SUFFIXES = (".csv", ".txt", ".tsv", ".json", ".jsonl", ".md", ".yaml", ".yml")
# What operating systems leave in folders; other such files begin with a dot.
SYSTEM_FILES = ("thumbs.db", "desktop.ini")
