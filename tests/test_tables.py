"""Time series tables and data set folders: what is read, what is refused, what comes back."""

import gzip
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metabolismgraph.errors import InputError
from metabolismgraph.formats.dataset import read_dataset, write_dataset
from metabolismgraph.formats.network_and_table import read_with_model
from metabolismgraph.formats.table_writer import write_timeseries
from metabolismgraph.formats.tables import read_several_timeseries, read_timeseries
from metabolismgraph.system.network import Reaction, ReactionNetwork
from metabolismgraph.system.observations import Observations

SHARED = Path(__file__).resolve().parents[2] / "shared"
NETWORK = ReactionNetwork.from_reactions(
    "net", ["A", "B"], [Reaction("R", {"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0})]
)
WIDE = "time,A,B\n0,1,2\n0.5,3,4\n2,5,6\n"
VALUES = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
LONG = "time,species,concentration\n0,A,1\n0,B,2\n0.5,A,3\n0.5,B,4\n2,A,5\n2,B,6\n"


@pytest.fixture
def read(tmp_path):
    def inner(content, name="data.csv", network=NETWORK):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_timeseries(path, network)

    return inner


def parquet(tmp_path, table, **options):
    table.to_parquet(tmp_path / "made.parquet", **options)
    return (tmp_path / "made.parquet").read_bytes()


def check(observations, values=VALUES):
    assert observations.time.tolist() == [0.0, 0.5, 2.0]
    assert observations.run.tolist() == [0, 0, 0]
    assert observations.concentration.tolist() == values


@pytest.mark.parametrize(
    "text",
    [
        WIDE,
        WIDE.replace("\n", "\r\n"),
        "\ufeff" + WIDE,
        "\n" + WIDE + "\n\n",
        WIDE.replace("time", " Time "),
        "B,TIME,A\n2,0,1\n4,0.5,3\n6,2,5\n",
        WIDE.replace(",", ";"),
        WIDE.replace(",", "\t"),
        '"time","A","B"\n0,"1",2\n0.5,3,4e0\n2,5,6\n',
        LONG,
        LONG.replace("concentration", "Value"),
        "species,time,concentration\nB,2,6\nA,2,5\nB,0,2\nA,0,1\nA,0.5,3\nB,0.5,4\n",
    ],
)
def test_text_tables(read, text):
    check(read(text))


@pytest.mark.parametrize(("name", "text"), [("data.csv.gz", WIDE), ("data.tsv.gz", WIDE.replace(",", "\t"))])
def test_gzip(read, name, text):
    check(read(gzip.compress(text.encode()), name))


def test_parquet(read, tmp_path):
    wide = pd.DataFrame({"A": [1.0, 3, 5], "time": [0, 0.5, 2], "B": [2, 4, 6]})
    check(read(parquet(tmp_path, wide), "data.parquet"))
    check(read(parquet(tmp_path, wide.set_index("time")), "data.parquet"))
    check(read(parquet(tmp_path, wide.convert_dtypes()), "data.parquet"))
    check(read(parquet(tmp_path, wide.melt("time", var_name="species")), "data.parquet"))


def test_float32_parquet(read, tmp_path):
    wide = pd.DataFrame({"time": [0, 0.5, 2], "A": [1.0, 3, 5], "B": [2, 4, 6]}, dtype=np.float32)
    assert read(parquet(tmp_path, wide), "data.parquet").concentration.dtype == np.float64


def test_runs_are_numbered_by_first_occurrence_and_put_together(read):
    both = read("time,run,A,B\n0,late,1,2\n0,early,5,6\n1,late,3,4\n1,early,7,8\n")
    assert both.run.tolist() == [0, 0, 1, 1]
    assert both.time.tolist() == [0, 1, 0, 1]
    assert both.concentration[:, 0].tolist() == [1, 3, 5, 7]
    long = read(
        "time,Run,species,concentration\n0,2,A,1\n0,2,B,2\n1,2,A,3\n1,2,B,4\n0,1,A,5\n0,1,B,6\n1,1,B,8\n1,1,A,7\n"
    )
    assert long.concentration.tolist() == both.concentration.tolist()


def test_species_may_be_called_like_the_columns(read):
    network = ReactionNetwork.from_reactions("net", ["run", "value"], [Reaction("R", {"run": 1.0}, {"value": 1.0})])
    assert read("time,run,value\n0,1,2\n1,3,4\n", network=network).concentration.tolist() == [[1, 2], [3, 4]]


# -- bad input


def refused(read, content, name="data.csv", network=NETWORK):
    with pytest.raises(InputError) as caught:
        read(content, name, network)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{name}: " in message
    assert message.count(name) == 1
    return message.split(f"{name}: ")[1]


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv: no such file"):
        read_timeseries(tmp_path / "nowhere.csv", NETWORK)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_empty_file(read, text):
    assert "empty" in refused(read, text)


def test_no_rows(read):
    assert "no rows" in refused(read, "time,A,B\n")


@pytest.mark.parametrize("content", [gzip.compress(WIDE.encode(), mtime=0)[:-12], b"\x1f\x8bnonsense", WIDE.encode()])
def test_damaged_gzip(read, content):
    assert "not a readable gzip file" in refused(read, content, "data.csv.gz")


@pytest.mark.parametrize("content", [b"PAR1 nonsense PAR1", b"time,A,B\n0,1,2\n"])
def test_damaged_parquet(read, content):
    assert "not a readable Parquet file" in refused(read, content, "data.parquet")


def test_binary(read):
    assert "not a text file" in refused(read, b"\xff\xfe\x00\x81 time")


@pytest.mark.parametrize(
    "text", ["time,A,B\n0,1,2\n1,2,3,4\n", "time,A,B\n0,1,2,9\n1,2,3,9\n", 'time,A,B\n0,1,"2\n1,2,3\n']
)
def test_ragged_rows(read, text):
    assert "not a readable table" in refused(read, text)


def test_no_time_column(read):
    assert refused(read, "hours,A,B\n0,1,2\n").startswith("no column 'time' (columns: hours, A, B)")


@pytest.mark.parametrize("text", ["time,A,A,B\n0,1,1,2\n", "Time,time,A,B\n0,0,1,2\n"])
def test_duplicate_column(read, text):
    message = refused(read, text)
    assert "'A' occurs twice" in message or "'Time' and 'time' are both the time" in message


def test_species_without_a_column(read):
    names = [f"M{i}" for i in range(9)]
    network = ReactionNetwork.from_reactions("net", names, [])
    message = refused(read, "time,M0\n0,1\n1,2\n", network=network)
    assert message.startswith("8 of 9 species have no column: M1, M2, M3, M4, M5, ...; add what was measured, or use ")


def test_species_without_a_row(read):
    message = refused(read, "time,species,value\n0,A,1\n1,A,2\n")
    assert message.startswith("1 of 2 species have no row: B; add what was measured")


def test_fixed_species_need_a_column_too(read):
    network = ReactionNetwork.from_reactions("net", ["A", "B", "C"], [], fixed=["C"])
    assert "no column: C" in refused(read, WIDE, network=network)


def test_column_that_is_no_species(read):
    network = ReactionNetwork.from_reactions("net", ["glucose", "pyruvate"], [])
    message = refused(read, "time,glucose,pyruvat,x\n0,1,2,3\n", network=network)
    assert message.startswith("column 'pyruvat' is not a species of network net (nearest: pyruvate; 1 more such)")


def test_row_of_no_species(read):
    assert refused(read, LONG.replace("2,B,6", "2,b,6")).startswith("species 'b' is not a species of network net")


def test_extra_column_of_a_long_table(read):
    text = "time,species,concentration,unit\n0,A,1,mM\n"
    assert refused(read, text).startswith("column 'unit' is not a column of a long table")


@pytest.mark.parametrize("cell", ["high", "1.5.2", "True", "1 mM", "2024-05-01"])
def test_cell_that_is_no_number(read, cell):
    assert refused(read, f"time,A,B\n0,1,2\n1,{cell},3\n").startswith(
        f"column 'A', data row 2: '{cell}' is not a number"
    )


def test_columns_of_dates_and_truth_values(read, tmp_path):
    table = pd.DataFrame({"time": pd.to_datetime(["2024-05-01", "2024-05-02"]), "A": [1.0, 2], "B": [1.0, 2]})
    assert "column 'time', data row 1: '2024-05-01" in refused(read, parquet(tmp_path, table), "data.parquet")
    table = pd.DataFrame({"time": [0.0, 1], "A": [True, False], "B": [1.0, 2]})
    assert "column 'A', data row 1: 'True' is not a number" in refused(read, parquet(tmp_path, table), "data.parquet")


@pytest.mark.parametrize("text", ["time,A,B\n0,1,2\n1,,3\n2,2,\n", "time,A,B\n0,1,2\n1,nan,3\n2,2\n"])
def test_missing_cells_are_interpolated_and_marked(read, text):
    observed = read(text)
    assert observed.concentration.tolist() == [[1, 2], [1.5, 3], [2, 3]]
    assert observed.measured.tolist() == [[True, True], [False, True], [True, False]]
    assert observed.notes[-1].startswith("2 of 6 values are missing (A, B): a fit of trajectories")


@pytest.mark.parametrize("text", [LONG.replace("0.5,A,3\n", ""), LONG.replace("0.5,A,3\n", "0.5,A,\n")])
def test_missing_cells_of_a_long_table(read, text):
    assert np.argwhere(~read(text).measured).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("text", "where"),
    [("time,A,B\n0,1,\n1,2,\n", ""), ("time,run,A,B\n0,0,1,2\n1,0,1,2\n0,1,1,\n1,1,2,\n", " in run 1")],
)
def test_species_that_was_not_measured(read, text, where):
    assert refused(read, text).startswith(f"B was not measured{where}; fill it in, remove the run, or use")


@pytest.fixture
def several(tmp_path):
    def inner(*contents):
        paths = [tmp_path / f"{name}.csv" for name in "abc"[: len(contents)]]
        for path, content in zip(paths, contents, strict=True):
            path.write_text(content)
        return read_several_timeseries(paths, NETWORK)

    return inner


def test_several_tables_are_runs(several, read):
    found = several(WIDE, "time,run,B,A\n0,x,1,2\n1,x,3,4\n0,y,5,6\n1,y,7,\n", LONG)
    first, last = read(WIDE), read(LONG)
    assert found.run.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert found.time.tolist() == [*first.time, 0, 1, 0, 1, *last.time]
    assert found.concentration.tolist() == [*first.concentration.tolist(), [2, 1], [4, 3], [6, 5], [6, 7], *VALUES]
    assert np.argwhere(~found.measured).tolist() == [[6, 0]]
    assert found.notes[0] == "Several tables: run 0 is a.csv, runs 1 to 2 are b.csv, run 3 is c.csv."
    assert any(note.startswith("b.csv: 1 of 8 values are missing (A)") for note in found.notes)
    assert several(WIDE).notes == first.notes


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Zeit,Glc,B\n0,1,2\n0.5,3,4\n2,5,6\n", {"Zeit": "time", "Glc": "A"}),
        ("Zeit [s],Glc (mM),B (mM)\n0,1,2\n0.5,3,4\n2,5,6\n", {"Zeit": "time", "Glc": "A"}),
        ("x=y,Glc,B\n0,1,2\n0.5,3,4\n2,5,6\n", {"x=y": "time", "Glc": "A"}),
        (LONG.replace("A", "Glc"), {"Glc": "A"}),
        (LONG.replace("species", "Stoff").replace("A", "Glc"), {"Glc": "A", "Stoff": "species"}),
        ("name,0,0.5,2\nGlc,1,3,5\nB,2,4,6\n", {"Glc": "A"}),
    ],
)
def test_names_that_are_given(tmp_path, text, names):
    (tmp_path / "data.csv").write_text(text)
    observed = read_several_timeseries([tmp_path / "data.csv"], NETWORK, names=names)
    check(observed)
    assert any(note.startswith("Read as stated: ") and "Glc as A" in note for note in observed.notes)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"Glc": "A"}, "data.csv: no column or species is named 'Glc' .Glc=A."),
        ({"A": "B"}, "column 'A' and column 'B' both mean B; keep one"),
        ({"A": "X"}, "column 'X' is not a species of network net"),
    ],
)
def test_names_that_do_not_fit(tmp_path, names, message):
    (tmp_path / "data.csv").write_text(WIDE)
    with pytest.raises(InputError, match=message):
        read_several_timeseries([tmp_path / "data.csv"], NETWORK, names=names)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("time,A (uM),B (uM)\n0,1,2\n1,2,3\n", "concentrations are in uM, those of .*a.csv in mM; convert them"),
        ("time,A,B\n0,1,2\n1,2,3\n", "concentrations are in no stated unit, those of .*a.csv in mM"),
        ("time (h),A (mM),B (mM)\n0,1,2\n1,2,3\n", "times are in h, those of .*a.csv in no stated unit"),
        ("time,A (mM)\n0,1\n1,2\n", "1 of 2 species have no column: B"),
    ],
)
def test_several_tables_that_do_not_fit_together(several, other, message):
    with pytest.raises(InputError, match=rf"b\.csv: {message}"):
        several("time,A (mM),B (mM)\n0,1,2\n1,2,3\n", other)


def test_missing_values_are_written_as_empty_cells(read, tmp_path):
    observed = read("time,A,B\n0,1,2\n1,,3\n2,2,\n")
    write_timeseries(observed, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == "time,A,B\n0,1,2\n1,,3\n2,2,\n"


def test_repeated_cell_of_a_long_table(read):
    assert refused(read, LONG + "0.5,B,4\n").startswith("B at time 0.5 occurs twice (data row 7)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,A,B\n0,1,2\n,1,3\n", "column 'time' has no value in data row 2"),
        ("time,run,A,B\n0,1,1,2\n1,,1,3\n", "column 'run' has no value in data row 2"),
        ("time,species,value\n0,A,1\n0,,1\n", "the species of data row 2 is missing"),
    ],
)
def test_missing_labels(read, text, message):
    assert refused(read, text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,A,B\n0,1,2\n1,-3,3\n", "concentration of A at frame 1 (time 1) is -3, which is negative"),
        ("time,A,B\n0,1,2\n1,inf,3\n", "concentration of A at frame 1 (time 1) is inf, which is not a finite number"),
        ("time,A,B\n0,1,2\n1,1,3\n1,1,3\n", "time does not increase at frame 2"),
        ("time,A,B\n0,1,2\n", "at least two frames"),
    ],
)
def test_broken_promises_name_the_file(read, text, message):
    assert refused(read, text).startswith(message)


# -- writing


def observations(frames=20, n=3, runs=1, seed=0):
    random = np.random.default_rng(seed)
    names = [f"S{i}" for i in range(n)]
    return Observations(
        network=ReactionNetwork.from_reactions("net", names, [Reaction("R", {"S0": 1.0}, {"S0": -1.0, "S1": 1.0})]),
        time=np.tile(np.arange(frames) * 0.1, runs),
        run=np.repeat(np.arange(runs), frames),
        concentration=random.lognormal(0, 4, (frames * runs, n)).astype(np.float32).astype(np.float64),
    )


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.tsv.gz"])
@pytest.mark.parametrize("runs", [1, 3])
def test_round_trip_keeps_float32_exactly(tmp_path, name, runs):
    made = observations(runs=runs)
    write_timeseries(made, tmp_path / name)
    back = read_timeseries(tmp_path / name, made.network)
    assert np.array_equal(back.concentration.astype(np.float32), made.concentration.astype(np.float32))
    assert np.allclose(back.time, made.time, rtol=1e-12)
    assert np.array_equal(back.run, made.run)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_run_is_written_only_where_there_are_several(tmp_path):
    write_timeseries(observations(), tmp_path / "one.csv")
    write_timeseries(observations(runs=2), tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_text().startswith("time,S0,S1,S2\n0,")
    assert (tmp_path / "two.csv").read_text().startswith("time,run,S0,S1,S2\n0,0,")


def test_the_bytes_are_reproducible(tmp_path, monkeypatch):
    write_timeseries(observations(), tmp_path / "a.csv.gz")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    write_timeseries(observations(), tmp_path / "b.csv.gz")
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


# -- data set folders


def test_dataset_round_trip(tmp_path):
    made = observations(runs=2)
    write_dataset(tmp_path / "deep" / "folder", made)
    back = read_dataset(tmp_path / "deep" / "folder")
    assert back.network.to_reactions() == made.network.to_reactions()
    assert np.allclose(back.concentration, made.concentration, rtol=1e-8)
    _, model = read_with_model(
        tmp_path / "deep" / "folder" / "network.xml", tmp_path / "deep" / "folder" / "timeseries.csv.gz"
    )
    assert list(model.initial.values()) == back.concentration[0].tolist()


def test_dataset_with_a_plain_table(tmp_path):
    write_dataset(tmp_path, observations())
    (tmp_path / "timeseries.csv").write_bytes(gzip.decompress((tmp_path / "timeseries.csv.gz").read_bytes()))
    (tmp_path / "timeseries.csv.gz").unlink()
    assert read_dataset(tmp_path).n_frames == 20


def test_incomplete_dataset(tmp_path):
    with pytest.raises(InputError, match="no such folder; a data set holds network.xml and timeseries.csv.gz"):
        read_dataset(tmp_path / "nowhere")
    write_dataset(tmp_path, observations())
    (tmp_path / "timeseries.csv.gz").unlink()
    with pytest.raises(InputError, match=r"timeseries\.csv\.gz: no such file"):
        read_dataset(tmp_path)
    (tmp_path / "network.xml").unlink()
    with pytest.raises(InputError, match=r"network\.xml: no such file"):
        read_dataset(tmp_path)


def test_the_shared_benchmark_is_read_and_written_back_byte_for_byte(tmp_path):
    folder = SHARED / "benchmarks" / "oscillatory_rank50"
    if not folder.exists():
        pytest.skip("the shared benchmark is not there")
    data = read_dataset(folder)
    assert data.concentration.shape == (2881, 100)
    write_dataset(tmp_path, data)
    assert (tmp_path / "network.xml").read_bytes() == (folder / "network.xml").read_bytes()
    written, original = ((f / "timeseries.csv.gz").read_bytes() for f in (tmp_path, folder))
    assert gzip.decompress(written) == gzip.decompress(original)


def test_reading_does_not_import_truth():
    code = "import sys, metabolismgraph.formats.dataset; sys.exit('metabolismgraph.ground_truth.truth' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
