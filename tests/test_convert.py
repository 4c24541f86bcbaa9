"""Models, tables and results in the formats of other programs: what they say there, and what is refused."""

import gzip
import zipfile
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from command_line import call, refused
from test_sbml import MATHML, document, mathml, reaction, species

import metabolismgraph as mg
from metabolismgraph.errors import InputError
from metabolismgraph.formats import antimony, model_conversion
from metabolismgraph.formats.sbml import read_sbml

DECAY = "model decay\n compartment cell = 2\n species A in cell\n A = 4\n k = 0.7\n loss: A => ; cell*k*A\nend\n"
TIME = np.linspace(0, 2, 5)
OMEX = "{http://identifiers.org/combine.specifications/omex-manifest}"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Names of files are relative to a folder of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def decay(folder):
    (folder / "decay.ant").write_text(DECAY)
    return folder / "decay.ant"


# -- models in Antimony


def test_an_antimony_model_is_simulated(decay):
    table = mg.simulate_model(decay, TIME)
    np.testing.assert_allclose(table["[A]"], 4 * np.exp(-0.7 * TIME), rtol=1e-7)


def test_an_antimony_model_is_read_as_a_network(decay):
    model = read_sbml(decay)
    assert model.network.id == "decay"
    assert model.initial == {"A": 4.0}
    assert model.rate_constants == {"loss": 0.7}


def test_compressed_antimony_and_a_table_are_read(decay, folder):
    (folder / "decay.antimony.gz").write_bytes(gzip.compress(DECAY.encode()))
    (folder / "decay.csv").write_text("time,[A]\n0,4\n1,2\n2,1\n")
    observations = mg.read("decay.antimony.gz", "decay.csv")
    assert observations.concentration[:, 0].tolist() == [4, 2, 1]
    with pytest.raises(InputError, match=r"decay.csv: looks like the table, and decay.ant like the network"):
        mg.read("decay.csv", "decay.ant")


def test_a_problem_has_the_antimony_model_as_sbml(decay, folder):
    (folder / "decay.csv").write_text("time,[A]\n0,4\n1,2\n2,1\n")
    mg.write_model_problem(decay, ["decay.csv"], "problem")
    assert read_sbml(folder / "problem" / "model.xml").network.species == ("A",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'import "/etc/passwd"\n' + DECAY.encode(), "m.ant: line 1: imports another file, which is never read"),
        (b'\nx = 1; import /* y */ "decay.ant"', "m.ant: line 2: imports another file, which is never read"),
        (b'import "missing.ant"', "m.ant: line 1: imports another file, which is never read"),
        (DECAY[:80].encode(), "m.ant: not valid Antimony: line 6: syntax error, unexpected"),
        (b"\xff\xfe\x80\x81 binary", "m.ant: not a text file; write the model in UTF-8"),
        (b"A -> B; k*A\0; A = 1", "m.ant: not a text file (it holds a NUL character)"),
        (b"A -> B; " + b"(" * 50_000 + b"A" + b")" * 50_000, "m.ant: not valid Antimony: line 1: memory exhausted"),
        (b"a := b; b := a; A -> ; a*A", "m.ant: not valid Antimony: line 1: Loop detected"),
        (b"", "m.ant: the file is empty"),
        (b"k = 1\n", "m.ant: the model has no species"),
        (b"<sbml/>", "m.ant: looks like SBML, not Antimony; give the file the suffix .xml"),
    ],
)
def test_antimony_that_is_refused(folder, content, message):
    (folder / "decay.ant").write_text(DECAY)
    (folder / "m.ant").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_sbml(folder / "m.ant")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "reserved word" not in str(caught.value)  # of the imported file


def test_without_the_package_the_extra_is_named(decay, monkeypatch):
    monkeypatch.setattr(antimony.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs the package antimony; pip install 'metabolismgraph\[antimony\]'"):
        mg.simulate_model(decay, TIME)


def test_a_process_that_dies_is_an_input_error(decay, monkeypatch, folder):
    (folder / "dies.py").write_text("import os\nos.abort()")
    monkeypatch.setattr(antimony, "_PROCESS", folder / "dies.py")
    with pytest.raises(InputError, match=r"decay.ant: libAntimony was killed by SIGABRT with this model"):
        mg.simulate_model(decay, TIME)
    (folder / "dies.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setattr(antimony, "_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"decay.ant: libAntimony needs too much time"):
        mg.simulate_model(decay, TIME)


# -- between SBML and Antimony

RULES = (
    f'<listOfInitialAssignments><initialAssignment symbol="k">{mathml("2 * q")}</initialAssignment>'
    f"</listOfInitialAssignments><listOfRules>"
    f'<assignmentRule variable="B">{mathml("3 * A")}</assignmentRule>'
    f'<rateRule variable="v">{mathml("1 - v")}</rateRule></listOfRules>'
)
LOCAL = '<listOfLocalParameters><localParameter id="q" value="0.123456789012345"/></listOfLocalParameters>'
RICH = document(
    [
        reaction("R", "1.5 A", "C", "q * A * v", local=LOCAL),
        reaction("Q", "C", "", "k * C / (1 + C) + piecewise(0.1, C > 0.5, 0)"),
    ],
    kinds=[
        species("A", more='initialConcentration="2"'),
        species("B"),
        species("C", more='initialAmount="1e-3"', amount="true"),
    ],
    parameters={"k": None, "q": 0.3, "v": 0.5},
    more=RULES,
    compartments=[("c", 0.5)],
)


def converted(folder, text, target="out.ant"):
    (folder / "model.xml").write_text(text)
    return mg.convert("model.xml", target, overwrite=True)


def test_trajectories_stay_the_same_in_antimony_and_back(folder):
    assert converted(folder, RICH) == ()
    assert mg.convert("out.ant", "back.sbml") == ()
    expected = mg.simulate_model("model.xml", TIME)
    assert expected["[C]"].iloc[-1] != pytest.approx(expected["[C]"].iloc[0])
    for name in ("out.ant", "back.sbml"):
        pd.testing.assert_frame_equal(mg.simulate_model(name, TIME)[expected.columns], expected, rtol=1e-8)


def test_the_initial_assignment_is_still_a_formula(folder):
    converted(folder, RICH)
    found = [mg.simulate_model(name, TIME, ["k"], {"q": 1.0}) for name in ("model.xml", "out.ant")]
    assert [table["k"].iloc[0] for table in found] == [2.0, 2.0]


def test_a_network_without_laws_stays_the_same(folder):
    converted(folder, document([reaction("R1", "A + B", "2 B"), reaction("R2", "1.5 C", "0.25 A")]))
    networks = [read_sbml(folder / name).network for name in ("model.xml", "out.ant")]
    assert networks[0].to_reactions() == networks[1].to_reactions()
    assert networks[0].species == networks[1].species


def test_a_reserved_word_gets_another_name_and_a_note(folder):
    text = document([reaction("R", "A", "", "at * A")], parameters={"at": 0.7})
    assert converted(folder, text) == ("at is a reserved word of Antimony: it is called at_ there.",)
    np.testing.assert_allclose(mg.simulate_model("out.ant", TIME)["A"], np.exp(-0.7 * TIME), rtol=1e-7)


def test_what_is_not_kept_is_noted(folder):
    text = document([reaction("R", "A", "", "k * A")], parameters={"k": 0.7})
    text = text.replace('spatialDimensions="3"', 'spatialDimensions="2"')
    assert converted(folder, text) == ("Antimony does not keep the dimensions of c.",)


def test_a_name_without_a_value_is_noted(folder):
    (folder / "typo.ant").write_text(DECAY.replace("cell*k*A", "cell*K*A"))
    assert mg.convert("typo.ant", "typo.xml") == ("Without a value: K.",)


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ('id="R" reversible="false" fast="false"', 'id="R" reversible="false" fast="true"', "whether R is fast"),
        ('spatialDimensions="3"', 'spatialDimensions="0"', "the initial value of C, whether c has a volume"),
    ],
)
def test_what_antimony_cannot_express_is_refused(folder, old, new, lost):
    assert old in RICH
    with pytest.raises(InputError, match=rf"model.xml: Antimony cannot express {lost}; keep the model in SBML"):
        converted(folder, RICH.replace(old, new))
    assert not (folder / "out.ant").exists()


@pytest.mark.parametrize(
    ("operator", "depth", "message"),
    [
        ("minus", 2, "Antimony cannot express the model; keep it in SBML"),  # --k, which libAntimony does not read
        ("abs", 1900, "a formula is nested too deeply to be read"),
    ],
)
def test_formulas_that_are_refused(folder, operator, depth, message):
    math = f"{f'<apply><{operator}/>' * depth}<ci> k </ci>{'</apply>' * depth}</math>"
    rule = f'<listOfRules><assignmentRule variable="v">{MATHML}{math}</assignmentRule></listOfRules>'
    text = document([reaction("R", "A", "", "v * A")], parameters={"k": 0.7, "v": None}, more=rule)
    with pytest.raises(InputError, match=f"^model.xml: {message}") as caught:
        converted(folder, text)
    assert "\n" not in str(caught.value)
    assert not (folder / "out.ant").exists()


def test_modifiers_without_a_law_stay_what_they_are(folder):
    text = document([reaction("R", "A", "B", modifiers=["E", "C"])])
    text = text.replace('species="C"/>', 'species="C" sboTerm="SBO:0000020"/>')  # an inhibitor
    converted(folder, text)
    networks = [read_sbml(folder / name).network for name in ("model.xml", "out.ant")]
    assert [network.to_reactions()[0].substrates for network in networks] == [{"A": 1.0, "E": 1.0}] * 2


@pytest.mark.parametrize("change", ["value", "law", "stoichiometry", "rule"])
def test_every_difference_is_seen(folder, monkeypatch, change):
    """As if libAntimony wrote another model."""
    old, new = {
        "value": ("q = 0.3", "q = 0.30000001"),
        "law": ("R_q*A*v", "R_q*A*v*1.00001"),
        "stoichiometry": ("1.5 A", "1.5001 A"),
        "rule": ("1 - v", "1 - v*v"),
    }[change]

    def other(content, source):
        written = antimony.antimony_of(content, source).decode()
        assert old in written
        return written.replace(old, new).encode()

    monkeypatch.setattr(model_conversion, "antimony_of", other)
    with pytest.raises(InputError, match="Antimony cannot express"):
        converted(folder, RICH)


# -- tables

RUNS = "time (s),run,B (mM),A (mM)\n0,control,1,2\n1,control,,3\n0,pulse,5,6\n2,pulse,7,8\n"


def test_a_table_with_runs_becomes_a_dataset(folder):
    (folder / "runs.csv").write_text(RUNS)
    mg.convert("runs.csv", "runs.nc")
    found = xr.load_dataset("runs.nc")
    assert dict(found.sizes) == {"run": 2, "time": 3, "species": 2}
    assert found["run"].to_numpy().tolist() == ["control", "pulse"]
    assert (found["time"].attrs["units"], found["concentration"].attrs["units"]) == ("s", "mM")
    assert found["concentration"].sel(run="pulse", species="A").to_numpy().tolist()[::2] == [6, 8]
    assert np.isnan(found["concentration"].sel(run="control", species="B", time=1))
    assert int(found["concentration"].count()) == 7


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_long_table_becomes_a_wide_one(folder, suffix):
    (folder / "long.tsv").write_text("time\tspecies\tconc [mM]\n0\tA\t0.1\n0\t[B]\t2\n1\tA\t3\n")
    mg.convert("long.tsv", f"wide{suffix}")
    read = pd.read_csv if suffix == ".csv" else pd.read_parquet
    expected = pd.DataFrame({"time": [0.0, 1.0], "A (mM)": [0.1, 3.0], "[B] (mM)": [2.0, np.nan]})
    pd.testing.assert_frame_equal(read(f"wide{suffix}"), expected, check_exact=True)


def test_assumptions_on_a_table_are_noted(folder):
    (folder / "wide.csv").write_text("species;0;1;2\nA;1,5;2;3\n")
    notes = mg.convert("wide.csv", "wide.nc")
    assert "Commas in numbers were read as decimal commas." in notes
    assert xr.load_dataset("wide.nc")["concentration"].to_numpy().tolist() == [[1.5], [2], [3]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"time,run,A\n0,1,2\n0,1,3\n", "time 0 occurs twice in a run; keep one row"),
        (b"time,A\n0,1\n0,2\n", "time 0 occurs twice in a run; keep one row"),
        (b"time,A (mM),B (g)\n0,1,2\n", "columns have different units"),
        (b"time\n0\n1\n", "no values of a species"),
        (b"A,B\n0,1\n", "no column 'time'"),
        (b"time,A,B\n0,1,2\n1,2", "the file seems to be cut off"),
        (b"time,A\n0,red\n", "'red' is not a number"),
        (b"\x89HDF\r\n", "this is an HDF5 or NetCDF file"),
        (bytes(range(256)), "not a text file"),
    ],
)
def test_tables_that_are_refused(folder, content, message):
    (folder / "table.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        mg.convert("table.csv", "table.nc")
    assert "\n" not in str(caught.value)
    assert not (folder / "table.nc").exists()


def test_a_simulation_is_written_as_netcdf(decay, monkeypatch):
    assert call(monkeypatch, "simulate-model", decay, "--end", 2, "--points", 5, "--out", "s.nc") == 0
    found = xr.load_dataset("s.nc")["concentration"].sel(species="[A]")
    assert found.dims == ("time",)
    np.testing.assert_allclose(found, 4 * np.exp(-0.7 * TIME), rtol=1e-7)
    # Other quantities are not called concentrations.
    words = ("--end", 2, "--points", 3, "--variables", "A,k", "--out", "chosen.nc")
    assert call(monkeypatch, "simulate-model", decay, *words) == 0
    chosen = xr.load_dataset("chosen.nc")
    assert set(chosen.data_vars) == {"value"}
    assert chosen["value"].sel(id="k").to_numpy().tolist() == [0.7] * 3


# -- folders of results


@pytest.fixture
def fit(folder):
    made = folder / "fits" / "mine"
    (made / "problem").mkdir(parents=True)
    (made / "model.xml").write_text(document([reaction("R", "A", "", "k * A")], parameters={"k": 0.7}))
    (made / "estimates.csv").write_text("parameter,estimate\nk,0.7\n")
    (made / "problem" / "problem.yaml").write_text("format_version: 1\nproblems: []\n")
    (made / ".hidden").write_text("")
    return made


def test_a_fit_becomes_a_combine_archive(fit):
    assert mg.convert(fit, "run.omex") == ()
    with zipfile.ZipFile("run.omex") as archive:
        names = archive.namelist()
        assert names == ["manifest.xml", "estimates.csv", "model.xml", "problem/problem.yaml"]
        assert archive.read("model.xml") == (fit / "model.xml").read_bytes()
        manifest = ET.fromstring(archive.read("manifest.xml"))
    assert manifest.tag == f"{OMEX}omexManifest"
    formats = {content.get("location"): content.get("format") for content in manifest}
    specification = "http://identifiers.org/combine.specifications/"
    assert formats == {
        ".": f"{specification}omex",
        "./manifest.xml": f"{specification}omex-manifest",
        "./estimates.csv": "http://purl.org/NET/mediatypes/text/csv",
        "./model.xml": f"{specification}sbml.level-3.version-1",
        "./problem/problem.yaml": f"{specification}petab.version-1",
    }
    assert [content.get("location") for content in manifest if content.get("master") == "true"] == ["./model.xml"]


def test_equal_folders_give_equal_archives(fit):
    mg.convert(fit, "one.omex")
    (fit / "estimates.csv").touch()
    mg.convert(fit, fit / "two.omex")
    mg.convert(fit, fit / "two.omex", overwrite=True)  # an archive does not hold itself
    assert (fit.parents[1] / "one.omex").read_bytes() == (fit / "two.omex").read_bytes()


def test_the_model_of_a_run_is_its_master(fit):
    (fit / "estimates.csv").rename(fit / "manifest.json")
    (fit / "model.xml").rename(fit / "model_fitted.xml")
    mg.convert(fit, "run.omex")
    with zipfile.ZipFile("run.omex") as archive:
        assert b'location="./model_fitted.xml"' in archive.read("manifest.xml")
        assert b'level-3.version-1" master="true"' in archive.read("manifest.xml")


def test_folders_that_are_refused(fit, folder):
    with pytest.raises(InputError, match="not the folder of a finished fit"):
        mg.convert(fit / "problem", "run.omex")
    (fit / "secret.txt").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"secret.txt: is a link; put a copy of the file in its place"):
        mg.convert(fit, "run.omex")
    (fit / "secret.txt").unlink()
    (fit / "manifest.xml").write_text("")
    with pytest.raises(InputError, match="an archive has a manifest of its own; rename this file"):
        mg.convert(fit, "run.omex")
    assert not (folder / "run.omex").exists()


# -- the command


def test_convert_writes_and_notes(folder, monkeypatch, capsys):
    (folder / "model.xml").write_text(document([reaction("R", "A", "", "at * A")], parameters={"at": 0.7}))
    assert call(monkeypatch, "convert", "model.xml", "model.ant") == 0
    assert "note: at is a reserved word of Antimony" in capsys.readouterr().out
    before = (folder / "model.ant").read_bytes()
    assert "model.ant exists" in refused(monkeypatch, capsys, "convert", "model.xml", "model.ant")
    (folder / "model.ant").write_text("")
    assert call(monkeypatch, "convert", "model.xml", "model.ant", "--overwrite", "--quiet") == 0
    assert (folder / "model.ant").read_bytes() == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("decay.ant", "decay.json", "decay.ant cannot be converted to decay.json; known: an SBML model"),
        ("decay.ant", "decay.nc", "known: an SBML model (.xml, .sbml) to Antimony (.ant, .antimony) and back"),
        ("decay.ant", "decay.omex", "the folder of a fit to .omex"),
        ("decay.ant", "decay.antimony", "cannot be converted"),
        (".", "model.xml", "cannot be converted"),
        ("missing.xml", "decay.ant", "missing.xml: no such file or folder"),
        ("decay.ant", "none/decay.xml", "there is no folder none"),
        ("decay.ant", "folder.xml", "folder.xml: is a folder"),
    ],
)
def test_conversions_that_are_refused(decay, folder, monkeypatch, capsys, source, target, message):
    (folder / "folder.xml").mkdir()
    assert message in refused(monkeypatch, capsys, "convert", source, target)


def test_options_of_the_published_program_are_refused_elsewhere(decay, monkeypatch, capsys):
    assert "not a data folder of the published program; leave out" in refused(
        monkeypatch, capsys, "convert", decay, "decay.xml", "--delta-t", 1
    )


def test_a_target_that_cannot_be_written(decay, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metabolismgraph.formats.model_conversion.write_bytes", full)
    with pytest.raises(InputError, match="decay.xml cannot be written: No space left on device"):
        mg.convert(decay, "decay.xml")
