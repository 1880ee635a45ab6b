"""Tables of ablations: their variants are those that the files sweep over; costs; the page."""

import csv
from itertools import product
from pathlib import Path

import pytest
from ablations import cost, page
from ablations.tables import TABLES, Table
from hydra import compose, initialize_config_module


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_variants_are_those_of_the_sweep(table: Table) -> None:
    choices = [[(name, value) for value in values] for name, values in table.choices().items()]
    baseline = {(("init.rule", ""),)} if table.name == "inflation" else set()  # without ablation
    assert set(table.variants()) == {*product(*choices), *baseline}
    assert set(table.paper) <= set(table.labels)
    assert all(len(values) == len(table.columns) for values in table.paper.values())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_each_sweep_composes_with_the_demo(table: Table) -> None:
    experiment = {
        "fpn": "demo_detection",
        "pooling_detection": "demo_detection",
        "inflation": "demo",
    }.get(table.name, "demo_pictures")
    with initialize_config_module("video_mvit.conf", version_base="1.3"):
        words = [f"experiment={experiment}", f"ablation={table.name}", "run_dir=run"]
        settings = compose("config", [*words, "data.root=data"])
        if table.name == "inflation":
            assert settings.init.rule == "center"
        for name in table.options():
            if name.startswith("model."):
                assert name.partition(".")[2] in settings.model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("mvitv2_image_t", {"attention": "pooling_swin", "window": 8}, 64),
        ("mask_rcnn_mvitv2_demo", {"attention": "pooling_hwin", "window": 16}, 96),
    ],
)
def test_cost_of_a_step_is_measured(name: str, options: dict[str, object], side: int) -> None:
    found = cost.measure({"name": name, "num_classes": 3} | options, side)
    assert found["step_s"] > 0
    assert found["peak_mb"] > 50


def write_run(folder: Path, number: int, options: list[str], values: list[float]) -> None:
    run = folder / str(number)
    (run / "config").mkdir(parents=True)
    (run / "config" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in options))
    metrics = run / "metrics" / "version_0"
    metrics.mkdir(parents=True)
    with (metrics / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "val/top1"])
        writer.writerows([epoch, 10 * (epoch + 1), value] for epoch, value in enumerate(values))


def test_page_tells_means_intervals_and_the_order_of_the_paper(tmp_path: Path) -> None:
    table = next(table for table in TABLES if table.name == "positions")
    last = {"none": (0.20, 0.21), "decomposed": (0.60, 0.61), "absolute": (0.195, 0.215)}
    number = 0
    for positions, values in last.items():
        for value in values:
            words = [f"model.positions={positions}", f"seed={number}"]
            write_run(tmp_path, number, words, [0.9, value])
            number += 1
    found = page.accuracies(tmp_path, table)
    assert list(found) == ["none", "absolute", "decomposed relative"]  # the order of the paper
    assert found["none"].value == pytest.approx(20.5)
    # Student's t of one degree of freedom: 12.706 * (1 / sqrt(2)) / sqrt(2)
    assert found["none"].half == pytest.approx(12.706 * 0.5)
    costs = {
        "224x224": {"none": {"step_s": 1.234, "peak_mb": 1500}},
        "16x224x224": {"none": {"step_s": 12, "peak_mb": 15000}},
    }
    text = page.section(table, found, costs, "a machine")
    assert "| none | 20.5 ± 6.4 | 1.23 s | 1,500 MB | 12.00 s | 15,000 MB | 83.3 | 49.2 |" in text
    assert "differ by more than their intervals, and in the paper's IN-1K top-1: 2;" in text
    assert "in the paper's order: 2." in text
    page.draw(table, found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_runs_that_did_not_finish_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = next(table for table in TABLES if table.name == "positions")
    write_run(tmp_path, 0, ["model.positions=none"], [0.1, 0.4])
    write_run(tmp_path, 1, ["model.positions=none"], [0.1])
    found = page.accuracies(tmp_path, table)
    assert found["none"].value == pytest.approx(40)
    assert page.comparison(table, found).startswith("One run each, without an interval")
    assert "1: 10 of 20 steps, left out" in capsys.readouterr().err


def test_interval_of_many_runs_has_a_quantile() -> None:
    assert page.mean_of([0.0, 1.0] * 20).half == pytest.approx(2.262 * 0.5063697 / 40**0.5)


def test_tables_without_costs_are_refused() -> None:
    with pytest.raises(SystemExit):
        cost.main(["costs.json", "--tables", "inflation"])


def test_truth_values_of_a_sweep_are_found_as_it_writes_them(tmp_path: Path) -> None:
    table = next(table for table in TABLES if table.name == "residual")
    write_run(tmp_path, 0, ["model.q_pooling=all", "model.residual_pooling=False"], [0.5])
    assert list(page.accuracies(tmp_path, table)) == ["Q in all blocks"]
