"""The command line: what it teaches, refuses and survives."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from experiments import phase_transition, registry, results
from experiments.cli import main

ROOT = Path(__file__).parents[1]
SMALL = ["phase-transition", "--preset", "smoke", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert main([*SMALL, "--trials", "6", "--out", str(folder)]) == 0
    return folder


def test_a_preset_gives_the_defaults_and_options_change_them(folder):
    saved = results.read(folder / "phase-transition.nc")
    provenance = results.provenance_of(saved)
    assert provenance["config"]["dims"] == [8]
    assert provenance["config"]["trials"] == saved.sizes["trial"] == 6
    assert {"commit", "device", "dtype", "wall_seconds", "versions"} <= set(provenance)
    assert saved.relative_error.attrs["long_name"].startswith("|L - L*|_F")
    assert list(saved.cell.coords["rank"].values) == [1, 1, 1, 2, 2, 2]


def test_figures_are_written_as_png_and_svg(folder):
    with Image.open(folder / "phase-transition.png") as picture:
        assert picture.width > 500
        assert np.asarray(picture.convert("L")).std() > 10
    assert "<svg" in (folder / "phase-transition.svg").read_text()


def test_the_report_is_one_page_with_everything_inside(folder, capsys):
    assert main(["report", "--out", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert 'src="data:image/svg+xml;base64,' in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "Gauss-Newton" in page
    assert "wall_seconds" in page


def test_a_report_of_nothing_is_refused(tmp_path, capsys):
    assert main(["report", "--out", str(tmp_path)]) == 1
    assert "no results" in capsys.readouterr().err


def test_resuming_a_finished_run_draws_it_again_without_computing(folder, capsys):
    before = xr.load_dataset(folder / "phase-transition.nc", engine="scipy")
    (folder / "phase-transition.png").unlink()
    assert main([*SMALL, "--trials", "6", "--out", str(folder), "--resume"]) == 0
    assert (folder / "phase-transition.png").is_file()
    after = xr.load_dataset(folder / "phase-transition.nc", engine="scipy")
    xr.testing.assert_equal(before, after)


def test_results_of_another_config_are_refused_and_kept(folder, capsys):
    before = (folder / "phase-transition.nc").read_bytes()
    assert main([*SMALL, "--trials", "7", "--out", str(folder)]) == 1
    assert "another config" in capsys.readouterr().err
    assert (folder / "phase-transition.nc").read_bytes() == before


def test_a_damaged_result_is_refused_and_kept(tmp_path, capsys):
    (tmp_path / "phase-transition.nc").write_bytes(b"CDF\x01 broken")
    assert main([*SMALL, "--out", str(tmp_path)]) == 1
    assert "damaged" in capsys.readouterr().err
    assert (tmp_path / "phase-transition.nc").read_bytes() == b"CDF\x01 broken"


def test_any_changed_bit_of_a_result_is_noticed(folder, tmp_path):
    whole = (folder / "phase-transition.nc").read_bytes()
    path = tmp_path / "phase-transition.nc"
    for place in np.random.default_rng(0).integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(place % 8)
        path.write_bytes(damaged)
        try:
            saved = results.read(path)
        except ValueError:
            continue
        # Padding and the order of bytes in the file do not matter.
        xr.testing.assert_identical(saved, results.read(folder / "phase-transition.nc"))


def test_a_new_run_sets_older_results_aside(tmp_path, capsys):
    options = [*SMALL, "--ranks", "1", "--ratios", "3", "--out", str(tmp_path)]
    assert main(options) == main(options) == 0
    assert len(list(tmp_path.glob("phase-transition-*.nc"))) == 1
    assert len(list(tmp_path.glob("phase-transition-*.db"))) == 1


def test_the_order_of_the_ratios_does_not_matter(tmp_path):
    texts = []
    for ratios in ((0.75, 1.5, 4.0), (4.0, 0.75, 1.5)):
        config = replace(phase_transition.PRESETS["smoke"], ratios=ratios)
        path = tmp_path / "phase-transition.nc"
        marks = results.provenance([results.fingerprint("phase-transition", config)], 1.0)
        results.write(path, phase_transition.run(config), marks)
        texts.append(phase_transition.table(results.read(path)))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "words",
    ["--solvers foo", "--trials 0", "--seed -1", "--ratios", "--ranks 99", "--devices 0"],
)
def test_values_out_of_range_end_with_two_and_block_nothing(tmp_path, words, capsys):
    assert main([*SMALL, *words.split(), "--out", str(tmp_path)]) == 2
    assert "expected" in capsys.readouterr().err or words == "--solvers foo"
    small = ["--ranks", "1", "--ratios", "3", "--trials", "2"]
    assert main([*SMALL, *small, "--out", str(tmp_path)]) == 0


def test_a_variant_of_a_solver_is_drawn_too(tmp_path):
    options = ["--solvers", "EP-ROM, paper", "--trials", "2", "--sigmas", "0.1", "0.01"]
    assert main(["noise", "--preset", "smoke", *options, "--quiet", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "noise.png").is_file()


def test_help_and_list_name_every_experiment(capsys):
    assert main(["--help"]) == main(["list"]) == main([]) == 0
    text = capsys.readouterr().out
    for name in registry.NAMES:
        assert text.count(f"\n{name} ") >= 1
        assert registry.summary(name) in text
    assert "Exit codes" in text


@pytest.mark.parametrize("name", registry.NAMES)
def test_every_experiment_has_its_parts_and_its_help(name, capsys):
    module = registry.experiment(name)
    assert set(module.PRESETS) == {"smoke", "paper", "full"}
    for config in module.PRESETS.values():
        assert isinstance(config, module.Config)
        assert hash(config) == hash(config)
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ("--preset", "--out", "--seed", "--resume", "--devices", "--quiet"):
        assert option in text


@pytest.mark.parametrize(
    "words", [["nonsense"], ["noise", "--preset", "huge"], ["noise", "--trials", "many"]]
)
def test_wrong_usage_ends_with_two(words, capsys):
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code
    assert code == 2


def start(out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments", *SMALL, "--out", str(out), "--resume"]
    # Background jobs of a shell ignore interrupts, and so would their children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [*command, "--solvers", "EP-ROM", "--max-steps", "400", *options],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for_records(out: Path, process: subprocess.Popen) -> None:
    """Wait until the run has begun to write."""
    log = out / "phase-transition.db-wal"
    while process.poll() is None and not (log.exists() and log.stat().st_size > 50_000):
        time.sleep(0.05)


@pytest.mark.fault(2)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_its_code_and_loses_nothing(tmp_path, number, code):
    process = start(tmp_path, "--trials", "20000")
    wait_for_records(tmp_path, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"--resume" in errors
    assert b"Traceback" not in errors
    assert not (tmp_path / "phase-transition.nc").exists()


@pytest.mark.fault(1)
@pytest.mark.fault(6)
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_resumed_it_ends_as_if_undisturbed(tmp_path, kills):
    rng = np.random.default_rng(kills)
    config = replace(
        phase_transition.PRESETS["smoke"], solvers=("EP-ROM",), max_steps=400, trials=300 * kills
    )
    options = "--trials", str(config.trials)
    for number in range(kills):
        process = start(tmp_path, *options)
        if number % 5 < 4:
            wait_for_records(tmp_path, process)
            time.sleep(rng.uniform(0, 0.3))
        else:
            time.sleep(rng.uniform(0, 4))
        assert process.poll() is None, "it was done before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    process = start(tmp_path, *options)
    process.communicate()
    assert process.returncode == 0
    table = xr.load_dataset(tmp_path / "phase-transition.nc", engine="scipy")
    table.attrs.clear()
    assert (table.num_steps > 0).all()
    xr.testing.assert_identical(table, phase_transition.run(config))
