"""Tables as simulators, spreadsheets and laboratories write them: read with a note, or refused in one helpful line."""

import importlib.util
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metabolismgraph.errors import InputError
from metabolismgraph.formats import contents
from metabolismgraph.formats.dataset import write_dataset
from metabolismgraph.formats.network_and_table import read_with_model
from metabolismgraph.formats.table_writer import write_timeseries
from metabolismgraph.formats.tables import read_timeseries
from metabolismgraph.formats.units import bare_unit, same_unit, split_unit
from metabolismgraph.system.network import Reaction, ReactionNetwork
from metabolismgraph.system.observations import Observations

SHARED = Path(__file__).resolve().parents[2] / "shared"
REACTION = Reaction("R", {"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0})
NETWORK = ReactionNetwork.from_reactions("net", ["A", "B"], [REACTION])
WIDE = "time,A,B\n0,1,2\n0.5,3,4\n2,5,6\n"
BODY = "0,1,2\n0.5,3,4\n2,5,6\n"
VALUES = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
LONG = "time,species,value\n0,A,1\n0,B,2\n0.5,A,3\n0.5,B,4\n2,A,5\n2,B,6\n"


class Model:
    """What a model says of species, as `read_timeseries` asks for it."""

    def __init__(self, values=None, names=None, other_ids=(), amounts=()):
        self.values = values or {}
        self.names = names or {}
        self.other_ids = frozenset(other_ids)
        self.amounts = frozenset(amounts)

    def fill_fixed(self, time, known):
        filled = {name: np.full(len(time), value) for name, value in self.values.items()}
        return filled, (f"From the model: {', '.join(filled)}.",)


NAMED = Model(names={"A": "Glucose", "B": "Fructose (6-P)"}, other_ids=["k1", "cell", "v1", "sample"])


@pytest.fixture
def read(tmp_path):
    def inner(content, name="data.csv", network=NETWORK, model=NAMED):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_timeseries(path, network, model)

    return inner


def check(observations, *notes, values=VALUES):
    assert observations.time.tolist() == [0.0, 0.5, 2.0]
    assert observations.run.tolist() == [0, 0, 0]
    assert observations.concentration.tolist() == values
    assert observations.notes == notes


def refused(read, content, name="data.csv", **options):
    with pytest.raises(InputError) as caught:
        read(content, name, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.count(name) == 1
    return message.split(f"{name}: ")[1]


# -- text


def rows(header):
    return f"{header}\n{BODY}"


@pytest.mark.parametrize(
    "content",
    [
        WIDE.replace("\n", "\r"),
        "time,A,B\r0,1,2\n0.5,3,4\r\n2,5,6\r",
        WIDE.encode("utf-16"),
        ("\ufeff" + WIDE).encode("utf-16-be"),
        WIDE.encode("utf-8-sig"),
        WIDE + "\x1a",
        "# made by X\n% and Y, too\n\n" + WIDE.replace("0.5", "# a comment, within\n0.5") + "# the end\n",
        WIDE.replace("\n", ",\n"),
        rows("time,A,B").replace("\n0", ",\n0", 1),
        "time,A,B\n0,1,2,\n0.5,3,4,\n2,5,6,\n",
        "time,A,B,,\n0,1,2,,\n0.5,3,4,,\n2,5,6,,\n",
        WIDE + ",,\n,,\n\n  \n",
        "time,A,B\n0,1,2\n\n0.5,3,4\n,,\n2,5,6\n",
        WIDE.replace(",", "  "),
        "  time A\tB\n" + BODY.replace(",", " \t"),
        "".join(f"   {line}\n" for line in WIDE.replace(",", "   ").splitlines()),
        '"time"  "A"  "B"\n' + BODY.replace(",", " "),
        "sep=;\n" + WIDE.replace(",", ";"),
        "sep=|\n" + WIDE.replace(",", "|"),
        '" time ", "A" ,B\n' + BODY,
        "time, A, B\n0, 1, 2\n0.5, 3, 4\n2, 5, 6\n",
        "time,A,B\n0,1.0D+00,20d-1\n0.5,3D0,4\n2,.5D1,6\n",
        LONG,
    ],
)
def test_without_a_note(read, content):
    check(read(content))


UNITS = "Units in the header are kept as they are ({}): rate constants are in these units."
FROM_COMMENT = "The names of the columns were read from a comment line."
BRACKETS = "Names in brackets are read as concentrations: [A], [B]."
INDEX = "A column that only numbers the rows was left out."


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (rows("# time,A,B"), [FROM_COMMENT]),
        (rows("#Time,A,B"), [FROM_COMMENT]),
        (rows("# a simulation\n% time,A,B\n# it went well"), [FROM_COMMENT]),
        ("# Time\t[A]\t[B]\n" + BODY.replace(",", "\t"), [FROM_COMMENT, BRACKETS]),
        ("# time A B\n" + BODY.replace(",", " "), [FROM_COMMENT]),
        ("#\ttime\tA\tB\n" + BODY.replace(",", "\t"), [FROM_COMMENT]),
        (rows("time,[A],[B]"), [BRACKETS]),
        (rows("t,A,B"), ["Column t is read as the time."]),
        (rows("Time [s],A,B"), [UNITS.format("times in s")]),
        (rows("time_min,A,B"), [UNITS.format("times in min")]),
        (rows("time (min),A (mM),B [mM]"), [UNITS.format("concentrations in mM, times in min")]),
        (rows("time / h,A / mM,[B] / mM"), [BRACKETS.replace("[A], ", "").replace("[B].", "[B] / mM."), None]),
        (rows("time,A (uM),B (µM)"), [UNITS.format("concentrations in uM")]),
        (rows("time,A (mmol/ml),B (mmol/mL)"), [UNITS.format("concentrations in mmol/ml")]),
        (rows("time,A (mM),B"), ["No unit is given for B: taken as mM, the unit of the others.", None]),
        (rows("time,A_conc,B concentration"), ["Read as concentrations: A_conc as A, B concentration as B."]),
        (
            rows("time,Glucose,Fructose (6-P)"),
            ["Read by the display name of a species: Glucose as A, Fructose (6-P) as B."],
        ),
        (rows("time,[Glucose],B"), ["Names in brackets are read as concentrations: [Glucose]."]),
        (
            rows("time,a,glucose").replace("glucose", "b"),
            ["Matched regardless of case: a as A, b as B."],
        ),
        (rows("time,A,B").replace("\n0,", "\ns,mM,mM\n0,", 1), ["The row below the header was read as units.", None]),
        (
            rows("time,A,B").replace("\n0,", "\n,[mM],[mM]\n0,", 1),
            ["The row below the header was read as units.", None],
        ),
        (",time,A,B\n0,0,1,2\n1,0.5,3,4\n2,2,5,6\n", [INDEX]),
        ("Unnamed: 0,time,A,B\n1,0,1,2\n2,0.5,3,4\n3,2,5,6\n", [INDEX]),
        ("time,A,B,index\n0,1,2,0\n0.5,3,4,1\n2,5,6,2\n", [INDEX]),
        ('"time" "A" "B"\n"1" 0 1 2\n"2" 0.5 3 4\n"3" 2 5 6\n', [INDEX]),
        ("time;A;B\n0;1,0;2\n0,5;3;4\n2;5;6", ["Commas in numbers were read as decimal commas."]),
        ("time\tA\tB\n0\t1,0\t2\n0,5\t3\t40,00e-1\n2\t5\t6", ["Commas in numbers were read as decimal commas."]),
        ("time;A;B\n0;1,0D+00;2\n0,5;3,0d0;4\n2;5;6", ["Commas in numbers were read as decimal commas."]),
        ("Time [s] A [mM]  B [mM]\n" + BODY.replace(",", " "), [UNITS.format("concentrations in mM, times in s")]),
        (rows("time,A (µM),B (µM)").encode("latin-1"), ["The file is not in UTF-8: it was read as Latin-1.", None]),
        ("time,A,B,k1,R\n0,1,2,7,1\n0.5,3,4,7,1\n2,5,6,7,1\n", ["Names that are not species were left out: k1, R."]),
        (
            "time,A,B,Values[k1],(v1).Flux,A',[B].Rate\n0,1,2,7,1,0,0\n0.5,3,4,7,1,0,0\n2,5,6,7,1,0,0\n",
            ["Names that are not species were left out: Values[k1], (v1).Flux, A', [B].Rate."],
        ),
        (
            "time,A,[A],B\n0,9,1,2\n0.5,9,3,4\n2,9,5,6\n",
            ["Left out, as amounts besides the concentrations in brackets: A.", None],
        ),
        ("sample,t,A,B\n1,0,1,2\n1,0.5,3,4\n1,2,5,6\n", ["Names that are not species were left out: sample.", None]),
        (LONG.replace("value", "Conc (mM)"), [UNITS.format("concentrations in mM")]),
        (LONG.replace("species", "variable").replace("A", "Glucose"), [None]),
        (LONG + "0,k1,7\n0.5,cell,1\n", ["Names that are not species were left out: k1, cell."]),
        (
            "species,0,0.5,2\nA,1,3,5\nB,2,4,6\n",
            ["The table has species in rows and times in columns: it was transposed."],
        ),
        ("time,0,0.5,2\nB,2,4,6\nk1,1,1,1\nA,1,3,5\n", [None, "Names that are not species were left out: k1."]),
        (",0,0.5,2\nA,1,3,5\nB,2,4,6\n", [None]),
    ],
)
def test_with_a_note(read, content, notes):
    observations = read(content)
    check(observations, *observations.notes)
    assert len(observations.notes) == len(notes)
    assert all(note in {None, found} for note, found in zip(notes, observations.notes, strict=True))


def test_a_commented_header_gives_way_to_a_plain_one(read):
    check(read("# time,B,A\n" + WIDE))


def test_what_is_no_unit_is_no_unit(read):
    assert refused(read, rows("time,A (sd),B")).startswith(
        "column 'A (sd)' is not a species of network net (nearest: A)"
    )
    assert bare_unit("sd") is bare_unit("replicate 1") is bare_unit("1") is None
    assert split_unit("Time [s]") == ("Time", "s")
    assert split_unit("NADP/NADPH") == ("NADP/NADPH", None)
    for unit in (
        "mM",
        "µmol/l",
        "μM",
        "nmol/gDW",
        "mmol l-1",
        "1/s",
        "mol/m^3",
        "a.u.",
        "Seconds",
        "mol·m⁻³",
        "%",
        "-",
    ):
        assert bare_unit(f"[{unit}]") == unit
    assert same_unit("umol/ml") == same_unit("μmol/mL") != same_unit("mmol/mL")


def test_species_come_before_what_their_names_look_like(read):
    network = ReactionNetwork.from_reactions("net", ["t", "sample", "A_conc", "A"], [])
    table = "time,t,sample,A_conc,A\n0,1,2,3,4\n1,5,6,7,8\n"
    assert read(table, network=network).concentration.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    network = ReactionNetwork.from_reactions("net", ["NA", "null"], [])
    long = read("time,species,value\n0,NA,1\n0,null,2\n1,NA,3\n1,null,4\n", network=network)
    assert long.concentration.tolist() == [[1, 2], [3, 4]]


def test_case_matters_where_it_tells_species_apart(read):
    network = ReactionNetwork.from_reactions("net", ["a", "A", "B"], [])
    assert read("time,A,a,b\n0,1,2,3\n1,4,5,6\n", network=network).concentration[0].tolist() == [2, 1, 3]
    assert refused(read, "time,a,B,b\n0,1,2,3\n", network=network).startswith("column 'b' is not a species")
    network = ReactionNetwork.from_reactions("net", ["glc", "Glc"], [])
    assert refused(read, "time,GLC,Glc\n0,1,2\n", network=network).startswith("column 'GLC' is not a species")


def test_a_display_name_of_two_species(read):
    model = Model(names={"A": "ATP", "B": "ATP"})
    assert refused(read, rows("time,ATP,B"), model=model).startswith(
        "column 'ATP' is the name of more than one species"
    )


@pytest.mark.parametrize("name", ["Replicate", "rep", "EXPERIMENT", "condition", "run"])
def test_run_columns(read, name):
    both = read(f"{name},time,A,B\nx,0,1,2\nx,1,3,4\nNA,0,5,6\nNA,2,7,8\n", model=None)
    assert both.run.tolist() == [0, 0, 1, 1]
    assert both.notes == ((f"Column {name} is read as the run.",) if name != "run" else ())


# -- values


def test_tiny_negatives_are_set_to_zero(read):
    made = read("time,A,B\n0,1,2\n0.5,3,-1e-17\n2,-3e-6,-2e-6\n")
    assert made.concentration.tolist() == [[1, 2], [3, 0], [0, 0]]
    assert made.notes == (
        "3 values were set to 0, being negative by less than 1e-06 of the largest of the species (A, B).",
    )


def test_larger_negatives_are_refused(read):
    message = refused(read, "time,A,B\n0,1,2\n0.5,3,-3e-6\n2,5,-1e-17\n")
    assert message.startswith("concentration of B at frame 1 (time 0.5) is -3e-06, which is negative")
    assert "is -1, which is negative" in refused(read, "time,A,B\n0,-1,2\n0.5,-1,3\n")
    assert "is inf, which is not a finite number" in refused(read, "time,A,B\n0,inf,2\n0.5,-1,3\n")


# -- what the model knows


WITH_FIXED = ReactionNetwork.from_reactions("net", ["A", "B", "C", "D"], [REACTION], fixed=["C"])


def test_fixed_species_need_no_column(read):
    model = Model({"C": 7.0, "D": 1.0, "A": 99.0})
    made = read(WIDE, network=WITH_FIXED, model=model)
    check(made, "From the model: C, D, A.", values=[[1, 2, 7, 1], [3, 4, 7, 1], [5, 6, 7, 1]])
    check(read(LONG, network=WITH_FIXED, model=model), made.notes[0], values=made.concentration.tolist())
    given_c = read("time,A,B,C,D\n0,1,2,3,4\n1,1,2,3,4\n", network=WITH_FIXED, model=model)
    assert given_c.concentration[0].tolist() == [1, 2, 3, 4]
    assert given_c.notes == ()


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        (WIDE, {"C": 7.0}, "1 of 4 species have no column, nor a value in the model: D"),
        (WIDE, {}, "2 of 4 species have no column, nor a value in the model: C, D"),
        ("time,A,C,D\n0,1,2,3\n1,2,3,4\n", {"B": 1.0}, "1 of 4 species have no column: B; add what was measured"),
        (LONG.replace("A", "C"), {"A": 1.0, "D": 1.0}, "1 of 4 species have no row: A; add what was measured"),
    ],
)
def test_other_species_need_one(read, table, values, message):
    assert refused(read, table, network=WITH_FIXED, model=Model(values)).startswith(message)


TWO_VOLUMES = ReactionNetwork.from_reactions("net", ["A", "B"], [REACTION], volume={"B": 2.0})
DIVIDED = "Amounts were divided by the volume of the compartment (B)."


@pytest.mark.parametrize(
    ("content", "amounts", "halved"),
    [
        (WIDE, "B", True),
        (WIDE, "", False),
        (WIDE, "A", False),  # its volume is 1
        (rows("time,A,[B]"), "B", False),
        (rows("time,A,B_conc"), "B", False),
        (rows("time,A (mM),B (mM)"), "B", False),
        (rows("time,A (mol),B (mol)"), "", True),
        (rows("time,A,b"), "B", True),
        (LONG, "B", True),
        (LONG.replace("value", "concentration"), "B", False),
        (LONG.replace("value", "value (mM)"), "B", False),
        (LONG.replace("value", "value (mol)"), "", True),
        (LONG.replace("value", "value (mol)").replace("B", "[B]"), "", False),
        (LONG.replace("B", "[B]"), "B", False),
    ],
)
def test_amounts_are_divided_by_volumes(read, content, amounts, halved):
    made = read(content, network=TWO_VOLUMES, model=Model(amounts=amounts))
    assert made.concentration.tolist() == [[a, b / 2 if halved else b] for a, b in VALUES]
    assert (DIVIDED in made.notes) == halved


def test_amounts_beside_concentrations_need_a_word(read):
    message = refused(read, rows("time,A (mM),B"), network=TWO_VOLUMES, model=Model(amounts="B"))
    assert message.startswith("column 'B' has no unit, and B is an amount in the model; write [B] if")


def test_read_inputs_hands_on_the_notes_of_both(tmp_path):
    data = Observations(NETWORK, np.array([0.0, 1.0]), np.array([0, 0]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    write_dataset(tmp_path, data)
    (tmp_path / "data.csv").write_text("t,A,B\n0,1,2\n1,3,4\n")
    observations, model = read_with_model(tmp_path / "network.xml", tmp_path / "data.csv")
    assert observations.notes == (*model.notes, "Column t is read as the time.")


def test_the_shared_case_of_line_ends():
    folder = SHARED / "cases" / "cr_line_ends"
    if not folder.exists():
        pytest.skip("the shared cases are not there")
    observations, _ = read_with_model(folder / "net.xml", folder / "data.csv")
    assert observations.concentration.shape == (16, 3)
    assert observations.concentration[1].tolist() == [4.96585303825, 4.39001856605, 0.644128395695]


# -- what is refused


def archive(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in files.items():
            made.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


XLSX = archive(xl__workbook="x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(a="time,A"), "this is a zip archive (a); unpack it"),
        (
            archive(mimetype="application/vnd.oasis.opendocument.spreadsheet"),
            "this is an OpenDocument file (.ods); save",
        ),
        (b"PK\x03\x04nonsense", "a damaged zip file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "this is an old spreadsheet (.xls); save it as CSV"),
        (b"%PDF-1.7\n", "this is a PDF document"),
        ("\n<!DOCTYPE html>\n<html>", "this is a web page (HTML)"),
        ("<table><tr>", "this is a web page (HTML)"),
        ('<?xml version="1.0"?>\n<!-- made -->\n<sbml level="3">', "this is an SBML model"),
        ("<?xml version='1.0'?><data/>", "this is an XML file"),
        ('[{"time": 0}]', "this is a JSON file"),
        ("[[0, 1, 2]]", "this is a JSON file"),
        (b"\x89HDF\r\n\x1a\n", "this is an HDF5 or NetCDF file"),
        (b"\x93NUMPY\x01\x00", "this is a NumPy array"),
        (b"\x89PNG\r\n\x1a\n", "this is an image"),
        (b"time,A,B\n0,\x00,1\n", "not a text file (it holds control characters)"),
        (b"\x00\x01\x02\xff" * 9, "not a text file"),
        (WIDE.encode("utf-16-le"), "not a text file"),
        (WIDE.encode("utf-16")[:-1], "not a text file"),
        ("time;A;B\n0;1,000;2\n1;3;4\n", "'1,000' may be a decimal number or thousands; write decimal points"),
        ("time;A;B\n0;1,5;2\n0.5;3;4\n", "numbers have both decimal commas (1,5) and points (0.5)"),
        ("time;A;B\n0;1.000,5;2\n1;3;4\n", "'1.000,5' is not a number; write decimal points"),
        ("time;A;B\n0;1,0,5;2\n1;3;4\n", "'1,0,5' is not a number"),
        ('time,A,B\n0,"1,5",2\n1,2,3', "column 'A', data row 1: '1,5' is not a number; write it with a decimal point"),
        ("time,A,B\n0,1,2\n# a comment\n\n1,2,3,4\n", "not a readable table (Expected 3 fields in line 5, saw 4)"),
        (
            "time,A,B\n0,5,1,5,2,5\n",
            "not a readable table (a row has more cells than the header); every row needs 3 cells",
        ),
        (rows("time,A (mM),B (µM)"), "columns have different units (A (mM): mM, B (µM): µM); convert them to one"),
        ("time,A,B\ns,mM,µM\n" + BODY, "columns have different units (A: mM, B: µM)"),
        ("time,A (mM),B\n,M,mM\n" + BODY, "column 'A (mM)' has another unit in the row below, M; keep one"),
        ("time,A,B\nseconds,high,low\n" + BODY, "column 'time', data row 1: 'seconds' is not a number"),
        (BODY, "the table has no header; name the columns in its first line"),
        ("# only\n# comments\n", "the file has comment lines only"),
        ("# time,A,B\n", "the table has no rows"),
        (",,\n0,1,2\n", "the first line names no columns"),
        ("time,A,B,A (mM)\n0,1,2,3\n1,1,2,3\n", "column 'A' and column 'A (mM)' both mean A; keep one"),
        ("time,t,A,B\n0,0,1,2\n", "columns 'time' and 't' are both the time; keep one"),
        ("run,rep,time,A,B\n0,0,0,1,2\n", "columns 'run' and 'rep' are both the run; keep one"),
        ("time,A,B,\n0,1,2,x\n1,3,4,y\n", "column 4 has no name; name it, or remove it"),
        (
            ",A,B\n0,1,2\n0.5,2,3\n",
            "no column 'time' (columns: Unnamed: 0, A, B); the first column has no name: call it",
        ),
        (
            "name,x1,x2\ntime,0,1\nA,1,2\nB,3,4\n",
            "no column 'time' (columns: name, x1, x2); species seem to be in rows",
        ),
        ("species,0,0.5\nA,1,2\nB,1,2\nA,1,2\n", "row 'A' occurs twice"),
        (
            "time,A,B\n0,1,2\n1,1,2\n0,1,2\n1,3,4\n",
            "time does not increase at frame 2 (1 -> 0); sort the rows by time, or",
        ),
        ('"time,A,B\n0,1,2\n', None),
        ("time\n0\n1\n", "2 of 2 species have no column: A, B"),
        ("time,A,B\n0,1,0x1F\n1,2,3\n", "column 'B', data row 1: '0x1F' is not a number"),
        ("time,A,B\n0,1,1_000\n1,2,3\n", "column 'B', data row 1: '1_000' is not a number"),
        ("time,A,B\n0,1,1e999\n1,2,3\n", "concentration of B at frame 0 (time 0) is inf"),
        ("time,A,B\n0,1,#DIV/0!\n1,2,3\n", "column 'B', data row 1: '#DIV/0!' is not a number"),
        ("time,A,B\nNA,1,2\n1,2,3\n", "column 'time' has no value in data row 1; fill it in"),
        ("time A B\n0 1\n1 2\n", "line 2 has 2 of 3 cells; where spaces separate cells, write NA for a missing one"),
        ("time,A,B\n0,1,2\n1,2,3\n2,1", "the last line has 2 of 3 cells and no line end: the file seems to be cut off"),
        (
            "time,species,count\n0,A,1\n0,B,2\n",
            "column 'species' names species, as in a long table, but a column of values is missing (columns: time, "
            "species, count); call it 'concentration' or 'value'",
        ),
        ("time,A,B\n0,1\n1,2\n", "B was not measured; fill it in, remove the run, or use `metabolismgraph fit-model`"),
        ("x" * 200_000, "the table has no rows"),
        ("time,A,B\n0,1," + "9" * 200_000 + "\n1,2,3\n", None),
        ("'time','A','B'\n0,1,2\n1,2,3\n", "no column 'time'"),
        ("{\n", None),
        ("\x0c\n", None),
        (",", None),
        ("\ufeff\ufeff", None),
        ("time,species,value\n0,A,1\n0,A (mM),1\n1,B,2\n", "species 'A' and species 'A (mM)' both mean A"),
    ],
)
def test_malformed_tables(read, content, message):
    found = refused(read, content)
    assert message is None or found.startswith(message)
    assert len(found) < 500


def test_a_spreadsheet_needs_a_reader(read, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = refused(read, XLSX, "data.xlsx")
    assert message.startswith("this is a spreadsheet (.xlsx); save it as CSV (in a spreadsheet program: File, Save As")


def test_a_spreadsheet_is_read_where_there_is_one(read, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    first = pd.DataFrame([["Time\n(s)", "A", "B"], [0, 1, 2], [0.5, 3, 4], [2, 5.0, 6]], dtype=object)
    sheets = {"empty": pd.DataFrame(), "Data": first, "More": first}
    monkeypatch.setattr(contents.pd, "read_excel", lambda *args, **options: sheets)
    check(read(XLSX), "Sheet Data was read; other sheets were not: More.", UNITS.format("times in s"))
    sheets.clear()
    assert refused(read, XLSX) == "the spreadsheet is empty"

    def fail(*args, **options):
        raise KeyError("no\nsheet")

    monkeypatch.setattr(contents.pd, "read_excel", fail)
    assert refused(read, XLSX).startswith("not a readable spreadsheet ('no\\nsheet'); save it as CSV")


# -- properties


def in_some_dialect(draw, table):
    """The text of a table as somebody might write it; what it says stays the same."""
    separator, decimal = draw(
        st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ","), ("  ", ".")])
    )
    exponent = draw(st.sampled_from(["e", "E", "D"]))

    def number(value):
        return repr(float(value)).replace("e", exponent).replace(".", decimal)

    # a decimal comma before three digits, everywhere, may mean thousands: such a table is refused
    header = [draw(st.sampled_from([name, f"[{name}]"])) if name in "AB" else name for name in table.columns]
    header[list(table.columns).index("time")] = draw(st.sampled_from(["time", "Time", "TIME", "t", '"time"']))
    lines = [separator.join(number(value) for value in row) for row in table.to_numpy()]
    if separator != "  " and draw(st.booleans()):
        header, lines = ["", *header], [f"{i}{separator}{line}" for i, line in enumerate(lines)]
    if separator != "  " and draw(st.booleans()):
        lines = [line + separator for line in lines]
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(["# said, 1 2", "", "   ", "%;"])))
    lines = [draw(st.sampled_from(["", "# ", "#"])) + separator.join(header), *lines]
    if draw(st.booleans()):
        lines.insert(0, "# from somewhere")
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    return (draw(st.sampled_from(["\n", "\r", "\r\n"])).join([*lines, ""])).encode(encoding)


VALUE = st.one_of(st.just(0.0), st.floats(1e-9, 1e9))


@settings(deadline=None)
@given(data=st.data(), values=st.lists(st.tuples(VALUE, VALUE), min_size=2, max_size=5), backwards=st.booleans())
def test_every_dialect_says_the_same(data, values, backwards):
    table = pd.DataFrame(values, columns=["A", "B"])
    table.insert(0, "time", np.arange(len(table)) * 0.5)
    table = table[table.columns[::-1]] if backwards else table
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.txt"
        path.write_bytes(in_some_dialect(data.draw, table))
        made = read_timeseries(path, NETWORK)
    assert made.time.tolist() == table["time"].tolist()
    np.testing.assert_allclose(made.concentration, table[["A", "B"]].to_numpy(), rtol=1e-15)


@settings(deadline=None)
@given(
    values=st.lists(st.tuples(VALUE, VALUE), min_size=2, max_size=5),
    name=st.sampled_from(["t.csv", "t.tsv", "t.csv.gz"]),
    volume=st.sampled_from([1.0, 2.5]),
    amounts=st.sampled_from(["", "B", "AB"]),
)
def test_what_is_written_is_read_back_whatever_the_model_says(values, name, volume, amounts):
    network = ReactionNetwork.from_reactions("net", ["A", "B"], [REACTION], volume={"B": volume})
    concentration = np.array(values, dtype=np.float32).astype(np.float64)
    made = Observations(network, np.arange(len(values)) * 0.1, np.zeros(len(values), dtype=np.int64), concentration)
    with tempfile.TemporaryDirectory() as folder:
        write_timeseries(made, Path(folder) / name)
        back = read_timeseries(Path(folder) / name, network, Model(amounts=amounts))
    assert np.array_equal(back.concentration.astype(np.float32), made.concentration.astype(np.float32))


WORDS = "time A B [A] run species value 0 1 0.5 1,5 -1 NA , ; # % s mM (mM) 1e5 1D5 inf µ k1 t"
PIECES = st.sampled_from(
    [
        *WORDS.split(),
        *("", " ", "\t", "\n", "\r", '"', "'", "sep=;\n", "Unnamed: 0", "\x00"),
    ]
)


@settings(deadline=None)
@given(
    pieces=st.lists(PIECES | st.text(max_size=3), max_size=30),
    start=st.sampled_from(["", "time,A,B\n", "time;A;B\n0;1;2\n"]),
)
def test_whatever_the_text_the_answer_is_one_line(pieces, start):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_bytes((start + "".join(pieces)).encode(errors="surrogatepass"))
        try:
            made = read_timeseries(path, NETWORK, NAMED)
        except InputError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - either is right
        else:
            assert np.isfinite(made.concentration).all()
