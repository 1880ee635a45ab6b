"""The options engine and precision: the same results, said in a line, or a sentence why not."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import composed
from support.engines import needs_openvino
from support.random_model import write_random_model

from video_mvit.cli import extract, predict
from video_mvit.cli.engines import choose_precision, resolve_precision
from video_mvit.cli.evaluate import build_evaluation, engine_precision, evaluate, resolve
from video_mvit.cli.option_values import check_verb
from video_mvit.kernels.cpu_linear import multiplies_bfloat16

DEMO = ("experiment=demo", "data.num_classes=16")
NATIVE = "bf16" if multiplies_bfloat16() else "float32"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos to test on, and a model of random weights with its card."""
    root = tmp_path_factory.mktemp("demo")
    write_random_model(root, num_tested=4)
    return root


def predicted(root: Path, output: Path, *options: str) -> dict[str, dict[str, float]]:
    given = [f"checkpoint={root}/model.safetensors", f"video={root}/test", "device=cpu", "top=8"]
    given += [f"output={output}", "format=json", "overwrite=true"]
    predict.main(composed("predict", *given, *options))
    lines = map(json.loads, output.read_text().splitlines())
    return {line["video"]: {e["label"]: e["score"] for e in line["top"]} for line in lines}


def assert_near(found: Any, expected: Any, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for video, scores in expected.items():
        assert found[video] == pytest.approx(scores, abs=tolerance)


@pytest.mark.slow
def test_predictions_of_openvino_are_those_of_torch(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_openvino()
    expected = predicted(root, tmp_path / "torch.json", "precision=float32")
    assert "engine" not in capsys.readouterr().err
    found = predicted(root, tmp_path / "ov.json", "engine=openvino", "precision=float32")
    assert_near(found, expected, 1e-4)
    line = " ".join(capsys.readouterr().err.split())
    assert line.startswith("engine openvino, float32: ")
    assert "clips/s; outputs within" in line


@pytest.mark.slow
def test_auto_precision_of_predict_is_bf16_where_it_is_native(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = predicted(root, tmp_path / "auto.json")
    said = capsys.readouterr().err
    assert ("precision bf16 (precision=float32 computes in float32)" in said) == (NATIVE == "bf16")
    exact = predicted(root, tmp_path / "exact.json", "precision=float32")
    assert_near(found, exact, 0.05)
    assert (found == exact) == (NATIVE == "float32")


@pytest.mark.long
def test_evaluation_by_openvino_agrees_and_says_so(root: Path, tmp_path: Path) -> None:
    needs_openvino()
    options = ["experiment=demo", f"data.root={root}", "data.num_workers=0"]
    options += [f"checkpoint={root}/model.safetensors", "motion=[frozen]", "run_dir=run"]
    results = []
    precise = "trainer.precision=32-true"
    for name, words in (
        ("torch", [precise]),
        ("openvino", [precise, "engine=openvino"]),
        ("int8", ["precision=int8", "engine=openvino"]),
    ):
        (tmp_path / name).mkdir()
        cfg = composed("evaluate", *options, f"output={tmp_path}/{name}", *words)
        results.append(evaluate(build_evaluation(resolve(cfg))))
    (by_torch, expected), (by_openvino, found), (by_int8, quantized) = results
    assert by_int8.origin.precision == "int8, openvino"
    for a, b in zip(quantized, expected, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=0.25)  # the logits are large
        assert a.scores != pytest.approx(b.scores, abs=1e-4)
    assert by_torch.origin.precision == "32-true"
    assert by_openvino.origin.precision == "32-true, openvino"
    assert by_torch.origin.weights_sha1 == by_openvino.origin.weights_sha1
    for a, b in zip(found, expected, strict=True):
        assert a.classes == b.classes
        assert a.motion == b.motion
        assert a.scores == pytest.approx(b.scores, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        ([], "32-true"),  # of experiment=demo, whose trainer is cpu
        (["trainer.precision=auto"], "bf16-mixed" if NATIVE == "bf16" else "32-true"),
        (["trainer.precision=auto", "engine=onnxruntime"], "32-true"),
        (["trainer.precision=bf16-mixed"], "bf16-mixed"),
    ],
)
def test_precision_of_an_evaluation_on_a_cpu(options: list[str], precision: str) -> None:
    given = [*DEMO, "trainer.accelerator=cpu", *options]
    assert resolve(composed("evaluate", *given)).trainer.precision == precision


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["trainer.accelerator=gpu"], "engine=onnxruntime runs on a CPU; use trainer=cpu"),
        (["compile=true"], "engine=onnxruntime does not work with compile"),
        (["trainer.precision=16-true"], "trainer.precision is '16-true'; engines have 32-true"),
        (["trainer.precision=bf16-mixed"], "engine=onnxruntime computes in float32"),
        (["precision=int8"], "engine=onnxruntime does not compute in int8"),
        (["precision=int8", "engine=torch"], "engine=torch does not compute in int8"),
    ],
)
def test_impossible_evaluation_by_an_engine_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(composed("evaluate", *DEMO, "engine=onnxruntime", *options))


def test_detector_is_evaluated_by_torch_alone() -> None:
    pytest.importorskip("torchvision")
    given = ["experiment=demo_detection", "engine=openvino"]
    with pytest.raises(ValueError, match="engine=openvino does not work with a detector"):
        resolve(composed("evaluate", *given))


@pytest.mark.parametrize("verb", ["predict", "extract"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["engine=onnxruntime", "precision=bf16"], "engine=onnxruntime computes in float32"),
        (["precision=int8"], "engine=torch does not compute in int8; use engine=openvino"),
        (["engine=openvino", "device=cuda"], r"engine=openvino runs on a CPU|no GPU was found"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_read(
    tmp_path: Path, verb: str, options: list[str], message: str
) -> None:
    given = ["checkpoint=none.ckpt", "video=none.mp4", f"output={tmp_path}/f.npz", *options]
    cfg = composed(verb, *given)
    with pytest.raises(ValueError, match=message):
        predict.check_options(cfg) if verb == "predict" else extract.run(cfg)


def test_precision_is_what_was_asked_for(tmp_path: Path) -> None:
    for wanted, expected in (("auto", NATIVE), ("float32", "float32"), ("bf16", "bf16")):
        given = ["video=a.mp4", f"output={tmp_path}/f.npz", "device=cpu", f"precision={wanted}"]
        assert resolve_precision(composed("extract", *given)) == expected
    assert choose_precision("onnxruntime", "cpu") == "float32"


def test_int8_is_asked_for_by_its_name(tmp_path: Path) -> None:
    needs_openvino()
    given = ["video=a.mp4", f"output={tmp_path}/f.npz", "engine=openvino"]
    assert resolve_precision(composed("extract", *given, "precision=int8")) == "int8"
    evaluated = composed("evaluate", *DEMO, "engine=openvino", "precision=int8")
    check_verb(evaluated, "evaluate")
    assert engine_precision(resolve(evaluated)) == "int8"
