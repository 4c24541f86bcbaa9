"""Truth: tables in and out, and in the order of a network."""

import dataclasses

import numpy as np
import pytest

from metabolismgraph.errors import InputError
from metabolismgraph.ground_truth.truth import Truth
from metabolismgraph.secret_keys import new_key

TRUTH = Truth(
    reactions=("R0", "R1"),
    species=("NA", "nan", "C"),  # names that a table reader likes to take for missing values
    k=np.array([0.1, 1 / 3]),
    type=np.array([1, 0, 1]),
    lam=np.array([0.002, 0.001, 0.002]),
    baseline=np.array([6.0, 4.0, 1e-17]),
)


@pytest.mark.parametrize("law", [None, np.array([[1.0, 0.1, 0.12345678901234567], [2.0, 1.0, 1.0]])])
def test_round_trip_to_the_last_digit(tmp_path, law):
    truth = dataclasses.replace(TRUTH, rate_law=law)
    truth.save(tmp_path / "data" / "truth")
    again = Truth.load(tmp_path / "data" / "truth")
    assert (again.reactions, again.species) == (truth.reactions, truth.species)
    for name in ("k", "type", "lam", "baseline"):
        np.testing.assert_array_equal(getattr(again, name), getattr(truth, name))
    assert again.type.dtype == np.int64
    assert (again.rate_law is None) == (law is None)
    np.testing.assert_array_equal(again.rate_law, law)


def test_a_folder_for_its_owner_alone(tmp_path):
    TRUTH.save(tmp_path / "truth")
    assert (tmp_path / "truth").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "truth" / "secret.key").exists()


def test_the_key_of_a_system_is_kept_with_its_truth(tmp_path):
    key = new_key()
    dataclasses.replace(TRUTH, secret=key).save(tmp_path / "truth")
    assert (tmp_path / "truth" / "secret.key").stat().st_mode & 0o777 == 0o600
    assert Truth.load(tmp_path / "truth").secret == key
    assert key.hex() not in repr(Truth.load(tmp_path / "truth"))
    (tmp_path / "truth" / "secret.key").write_bytes(key + b"\n")
    with pytest.raises(InputError, match=r"secret.key: not a key \(33 bytes, expected 32\)"):
        Truth.load(tmp_path / "truth")
    TRUTH.save(tmp_path / "truth")
    assert Truth.load(tmp_path / "truth").secret is None


def test_aligned_to_another_order():
    other = TRUTH.aligned(("C", "NA"), ("R1", "R0"))
    assert (other.species, other.reactions) == (("C", "NA"), ("R1", "R0"))
    assert other.k.tolist() == [1 / 3, 0.1]
    assert other.type.tolist() == [1, 1]
    assert other.lam.tolist() == [0.002, 0.002]
    assert other.baseline.tolist() == [1e-17, 6.0]


def test_what_has_no_row_is_named():
    with pytest.raises(InputError, match=r"^truth: metabolite 'X' of the network has no row \(2 missing\)$"):
        TRUTH.aligned(("C", "X", "Y"), ("R1",))
    with pytest.raises(InputError, match=r"^truth: reaction 'R9' of the network has no row \(1 missing\)$"):
        TRUTH.aligned(("C",), ("R9",))


@pytest.mark.parametrize(
    "text",
    [
        "\nreaction,k\nNA,0.5\n",
        "reaction,k\nNA,0.5\n \n\n",
        '\ufeff"reaction","k"\r\n"NA" ,0.5\r\n',
        "k,note,reaction\n0.5,of an experiment,NA\n",
    ],
)
def test_tables_by_hand_are_read(tmp_path, text):
    TRUTH.save(tmp_path)
    (tmp_path / "reactions.csv").write_text(text, newline="")
    again = Truth.load(tmp_path)
    assert (tuple(name.strip() for name in again.reactions), again.k.tolist()) == (("NA",), [0.5])


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("reactions.csv", None, "no such file; a truth folder holds reactions.csv and metabolites.csv"),
        ("metabolites.csv", None, "no such file; a truth folder holds reactions.csv and metabolites.csv"),
        ("reactions.csv", "", "not a readable CSV file"),
        ("reactions.csv", "reaction,k\nR0,1\nR1,1,2,3\n", "not a readable CSV file"),
        ("reactions.csv", "reaction,k\nR0,1\nR1\n", "not a readable CSV file .the row 'R1' has 1 of 2 cells.$"),
        ("reactions.csv", "\n\n", "not a readable CSV file .it is empty.$"),
        ("reactions.csv", "reaction,k\nR0,1\nR0,2\n", "reaction 'R0' has several rows; keep one"),
        ("reactions.csv", "reaction,rate\nR0,1\n", r"column 'k' is missing \(columns: reaction, rate\)"),
        ("reactions.csv", "reaction,k\nR0,fast\n", "column 'k' is not all numbers"),
        ("reactions.csv", "reaction,k\nR0,\n", "column 'k' is not all numbers"),
        ("metabolites.csv", "metabolite,type,lambda,c_baseline\nA,one,1,1\n", "column 'type' is not all numbers"),
        ("metabolites.csv", "metabolite,type,lambda\nA,0,1\n", "column 'c_baseline' is missing"),
        ("rate_law.csv", "order,concentration\n1,1\n", "column 'f' is missing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, table, text, message):
    TRUTH.save(tmp_path)
    path = tmp_path / table
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        Truth.load(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
