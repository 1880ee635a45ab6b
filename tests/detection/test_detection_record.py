"""What the loggers of a detector's run are told of its evaluation."""

from pathlib import Path

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from support.coco import ORIGIN, random_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytest.importorskip("pycocotools")

from video_mvit.detection.detection_record import COLUMNS, record_detections
from video_mvit.detection.results import summarize_detections


def test_numbers_and_classes_of_a_detector_are_logged(tmp_path: Path) -> None:
    truth, found = random_data()
    result = summarize_detections(truth, found, {}, ORIGIN, time_s=1.0, num_resumed=0)
    log = TensorBoardLogger(tmp_path, name="tensorboard", version="")
    record_detections(log, result, 5)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name, numbers in (("box", result.box), ("mask", result.mask)):
        assert numbers is not None
        (ap,) = events.Scalars(f"test/{name}_ap")
        assert (ap.step, ap.value) == (5, pytest.approx(numbers.ap))
    (event,) = events.Tensors("test/classes/text_summary")
    rows = event.tensor_proto.string_val[0].decode().splitlines()
    assert rows[0] == f"| {' | '.join(COLUMNS)} |"
    assert len(rows) == 2 + len(ORIGIN.class_names)
    assert ORIGIN.class_names[0] in rows[2]
