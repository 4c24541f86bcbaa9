"""Bad input is refused with one line and exit code 2, and nothing is left where the run would have been."""

from __future__ import annotations

import subprocess

import numpy as np
import pandas as pd
import pytest
from command_line import QUICK, call, refused


class TestBadInput:
    """Each is refused with one line, and nothing is left where the run would have been."""

    @pytest.fixture
    def fit(self, dataset, monkeypatch, capsys, tmp_path):
        table = pd.read_csv(dataset / "timeseries.csv.gz")

        def fit(change=lambda table: table, network=dataset / "network.xml", timeseries=None) -> str:
            path = timeseries or tmp_path / "changed.csv"
            if timeseries is None:
                change(table.copy()).to_csv(path, index=False)
            message = refused(monkeypatch, capsys, "fit", network, path, "--out", tmp_path / "out")
            assert not (tmp_path / "out").exists()
            return message

        return fit

    def test_missing_network(self, fit, tmp_path):
        assert "no such file" in fit(network=tmp_path / "absent.xml")

    def test_missing_timeseries(self, fit, tmp_path):
        assert "no such file" in fit(timeseries=tmp_path / "absent.csv")

    def test_invalid_sbml(self, fit, tmp_path):
        path = tmp_path / "broken.xml"
        path.write_text("<sbml><model>")
        assert "broken.xml" in fit(network=path)

    def test_damaged_gzip(self, fit, dataset, tmp_path):
        path = tmp_path / "cut.csv.gz"
        path.write_bytes((dataset / "timeseries.csv.gz").read_bytes()[:2000])
        assert "gzip" in fit(timeseries=path)

    def test_species_without_column(self, fit):
        assert "M003" in fit(lambda t: t.drop(columns="M003"))

    def test_column_without_species(self, fit):
        assert "M03x" in fit(lambda t: t.assign(M03x=1.0))

    def test_empty_column(self, fit):
        assert "M002 was not measured" in fit(lambda t: t.assign(M002=np.nan))

    def test_negative(self, fit):
        assert "negative" in fit(lambda t: t.assign(M002=-t.M002))

    def test_time_not_increasing(self, fit):
        assert "time" in fit(lambda t: t.assign(time=np.r_[t.time[:5], 0.1, t.time[6:]]))

    def test_too_few_frames(self, fit):
        assert "at least" in fit(lambda t: t.head(3))

    def test_truth_of_another_system(self, dataset, monkeypatch, capsys, tmp_path):
        truth = tmp_path / "truth"
        subprocess.run(["cp", "-r", dataset / "truth", truth], check=True)
        table = pd.read_csv(truth / "reactions.csv")
        table.head(3).to_csv(truth / "reactions.csv", index=False)
        files = (dataset / "network.xml", dataset / "timeseries.csv.gz")
        assert "truth" in refused(monkeypatch, capsys, "fit", *files, "--truth", truth, "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_unknown_key(self, monkeypatch, capsys, tmp_path):
        message = refused(
            monkeypatch, capsys, "run", "small", "--set", "training.learning_rate_kk=1", "--out", tmp_path / "o"
        )
        assert "learning_rate_k" in message
        assert not (tmp_path / "o").exists()

    def test_wrong_type(self, monkeypatch, capsys, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("training:\n  batch_size: many\n")
        message = refused(monkeypatch, capsys, "run", path, "--out", tmp_path / "o")
        assert "mine.yaml" in message
        assert "batch_size" in message

    def test_unknown_configuration(self, monkeypatch, capsys):
        assert "small" in refused(monkeypatch, capsys, "run", "smal")

    def test_out_is_a_file(self, monkeypatch, capsys, tmp_path):
        (tmp_path / "file").write_text("")
        assert "another --out" in refused(monkeypatch, capsys, "run", "small", "--out", tmp_path / "file", *QUICK)
        assert "another --out" in refused(
            monkeypatch, capsys, "run", "small", "--out", tmp_path / "file" / "below", *QUICK
        )

    def test_out_not_writable(self, monkeypatch, capsys):
        message = refused(monkeypatch, capsys, "run", "small", "--out", "/proc/nothing", *QUICK)
        assert "/proc/nothing" in message

    def test_damaged_manifest(self, monkeypatch, capsys, tmp_path):
        (tmp_path / "manifest.json").write_text("{")
        assert "damaged" in refused(monkeypatch, capsys, "run", "small", "--out", tmp_path, "--resume", *QUICK)

    def test_a_simulation_that_blows_up_ends_with_code_1(self, monkeypatch, capsys, tmp_path):
        arguments = ("run", "small", "--set", "simulation.delta_t=5", "--out", tmp_path / "o", *QUICK)
        assert call(monkeypatch, *arguments, "--quiet") == 1
        assert "diverged at frame" in capsys.readouterr().err
