"""Where a run is: dated folders, jobs of SLURM, ranks that share one, starts that are refused."""

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from support.commands import run_command, running_ranks
from support.processes import TIMEOUT_S, run_ranks, srun, torchrun
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from video_mvit.cli.failed_starts import leaving_nothing
from video_mvit.cli.run_folder import open_folder, writing_alone
from video_mvit.cli.run_place import at_newest, folder_of, make_dated, shared, sweep_folder
from video_mvit.cli.run_place import trained_folder as trained
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.errors import UserError

DATED = re.compile(r"runs/mine/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?")
JOB = {"SLURM_JOB_ID": "12"}


def place(environment: Mapping[str, str] | None = None, **options: Any) -> str:
    cfg = OmegaConf.create({"name": "mine", "run_dir": None, "resume_from": None, **options})
    return str(folder_of(cfg, environment or {}))


def write_run(folder: Path, age_s: int = 0) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    path = folder / "checkpoints" / "last.ckpt"
    path.touch()
    os.utime(path, (1e9 - age_s, 1e9 - age_s))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("here")
def test_run_without_a_folder_has_a_date_that_no_other_has() -> None:
    with ThreadPoolExecutor() as pool:
        found = [str(path) for path in pool.map(make_dated, [Path("runs/mine")] * 9)]
    assert len(set(found)) == 9
    assert all(map(DATED.fullmatch, found))
    assert place(run_dir="there") == "there"


@pytest.mark.usefixtures("here")
def test_job_of_slurm_is_found_again_by_its_number() -> None:
    assert place(JOB) == "runs/mine/slurm-12"
    write_run(Path("runs/mine/slurm-12"))
    write_run(Path("runs/mine/newer"))
    for resume in (None, "auto", "last"):
        assert place(JOB, resume_from=resume) == "runs/mine/slurm-12"
    array = {**JOB, "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}
    assert place(array, resume_from="auto") == "runs/mine/slurm-10_3"
    assert place({"SLURM_JOB_ID": "../../x"}).startswith("runs/mine/2")


@pytest.mark.usefixtures("here")
def test_resumed_run_is_the_newest_of_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"no run in runs/mine to resume; run_dir="):
        place(resume_from="last")
    assert not Path("runs").exists()
    assert DATED.fullmatch(place(resume_from="auto"))
    old, new = write_run(Path("runs/mine/a"), 10), write_run(Path("runs/mine/b"))
    for resume in ("auto", "last", "best", "e003"):
        assert place(resume_from=resume) == str(new)
    assert "runs/mine/b is the newest run of runs/mine" in capsys.readouterr().err
    assert place(resume_from=f"{old}/checkpoints/last.ckpt") == str(old)


@pytest.mark.usefixtures("here")
def test_evaluation_is_of_the_run_that_its_checkpoint_lies_in() -> None:
    def found(**options: Any) -> str:
        cfg = {"name": "mine", "run_dir": None, "checkpoint": "best", **options}
        return str(trained(OmegaConf.create(cfg)))

    assert found() == "runs/mine"
    old, new = write_run(Path("runs/mine/a"), 10), write_run(Path("runs/mine/b"))
    assert found() == found(run_dir="runs/mine") == str(new)
    assert found(checkpoint=f"{old}/checkpoints/last.ckpt") == str(old)
    assert found(run_dir=str(old)) == str(old)
    assert at_newest(OmegaConf.create({"run_dir": "runs/mine"})).run_dir == str(new)
    assert at_newest(OmegaConf.create({"run_dir": "elsewhere"})).run_dir == "elsewhere"


@pytest.mark.usefixtures("here")
def test_sweep_has_a_dated_folder_unless_one_is_named() -> None:
    found = sweep_folder("train", ["optim.lr=1,2"], {}) or ""
    assert re.fullmatch(r"runs/\$\{name\}/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", found)
    assert (sweep_folder("probe", ["seed=1,2"], {}) or "").startswith("runs/${name}/2")
    assert sweep_folder("train", [], JOB) == "runs/${name}/slurm-12"
    assert sweep_folder("train", ["run_dir=x"], {}) is None
    assert sweep_folder("train", ["hydra.sweep.dir=x"], {}) is None
    assert sweep_folder("predict", [], {}) is None


# Several processes


@pytest.fixture
def store() -> Iterator[dict[str, str]]:
    """The store of torchrun, and what it tells its processes of it."""
    server = TCPStore(
        "127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=TIMEOUT_S), wait_for_workers=False
    )
    yield {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(server.port)}
    del server


def choice_of_rank(folder: Path, told: dict[str, str]) -> str:
    os.chdir(folder)
    try:
        return place({**os.environ, **told})
    except UserError as error:
        return f"error: {error}"


@pytest.mark.slow
def test_ranks_of_torchrun_share_the_folder_of_the_first(
    tmp_path: Path, store: dict[str, str]
) -> None:
    first = run_ranks(choice_of_rank, 2, tmp_path, store)
    assert first[0] == first[1]
    assert DATED.fullmatch(first[0])
    assert len(list((tmp_path / "runs" / "mine").iterdir())) == 1
    # Restarted by torchrun, they find it again.
    assert run_ranks(choice_of_rank, 2, tmp_path, store) == first


@pytest.mark.slow
def test_ranks_of_slurm_share_the_folder_of_their_job(tmp_path: Path) -> None:
    assert run_ranks(choice_of_rank, 2, tmp_path, {}, starter=srun) == ["runs/mine/slurm-12"] * 2


def test_mistake_of_the_first_rank_is_told_in_all(store: dict[str, str]) -> None:
    def fail() -> str:
        raise UserError("no")

    told = {**{name: str(value) for name, value in torchrun(0, 2, 1).items()}, **store}
    for rank in ("0", "1"):
        with pytest.raises(UserError, match=r"^no$"):
            shared(fail, {**told, "MASTER_ADDR": "127.0.0.1", "RANK": rank})
    with pytest.raises(UserError, match="name its folder: run_dir="):
        shared(fail, {**told, "TORCHELASTIC_USE_AGENT_STORE": "False"})


# Whole commands


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_demo_dataset(root, {"train": 16, "val": 8, "test": 8}, 0, lambda _: None)
    return root


SMALL = ["optim.num_epochs=1", "data.train_batch_size=8", "data.num_workers=0"]


@pytest.mark.slow
def test_requeued_job_goes_on_in_its_folder_and_the_folder_is_enough_to_evaluate(
    tmp_path: Path, data_root: Path
) -> None:
    words = ["train", "experiment=demo", f"data.root={data_root}", *SMALL, "resume_from=auto"]
    job = {"SLURM_JOB_ID": "12"}
    stopped = run_command(*words, "trainer.max_steps=1", cwd=tmp_path, environment=job)
    assert stopped.returncode == 0, stopped.stderr
    more = [*words, "allow_config_changes=true"]
    again = run_command(*more, cwd=tmp_path, environment=job)
    assert again.returncode == 0, again.stderr
    runs = tmp_path / "runs" / "demo"
    assert [path.name for path in runs.iterdir()] == ["slurm-12"]
    versions = {path.name for path in (runs / "slurm-12" / "metrics").iterdir()}
    assert versions == {"version_0", "version_1"}

    result = run_command("evaluate", "runs/demo", "checkpoint=last", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "runs/demo/slurm-12 is the newest run of runs/demo" in result.stderr
    assert "settings of runs/demo/slurm-12: experiment=demo" in result.stderr
    assert (runs / "slurm-12" / "evaluation" / "results.json").is_file()


@pytest.mark.slow
def test_two_ranks_train_in_one_dated_folder(
    tmp_path: Path, data_root: Path, store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    monkeypatch.setattr("support.commands.free_port", lambda: int(store["MASTER_PORT"]))
    words = ["train", "experiment=demo", f"data.root={data_root}", *SMALL]
    log = tmp_path / "log"
    with running_ranks(2, *words, cwd=tmp_path, log=log) as ranks:
        for rank in ranks:
            rank.join(TIMEOUT_S)
    assert [rank.exitcode for rank in ranks] == [0, 0], log.read_text()
    (run,) = (tmp_path / "runs" / "demo").iterdir()
    assert (run / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_refused_start_leaves_nothing(tmp_path: Path, data_root: Path) -> None:
    words = ["train", "experiment=demo", *SMALL]
    (data_root / "empty").mkdir()
    for mistake in (f"data.root={data_root}/empty", f"data.root={data_root} model.num_heads=7"):
        result = run_command(*words, *mistake.split(), cwd=tmp_path)
        assert result.returncode == 1
        assert not list(tmp_path.iterdir()), result.stderr


def start(folder: Path, error: Exception) -> None:
    """Begin a run that ends at once."""
    with writing_alone(folder, "run_dir"), leaving_nothing(folder):
        open_folder(str(folder), "train")
        raise error


def test_refused_start_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError):
        start(folder, UserError("no"))
    assert not folder.exists()
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(UserError):
        start(folder, UserError("no"))
    assert {path.name for path in folder.iterdir()} == {"mine", "train.log"}


def test_error_of_the_program_leaves_its_log(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        start(tmp_path / "run", ZeroDivisionError())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["train.log"]
