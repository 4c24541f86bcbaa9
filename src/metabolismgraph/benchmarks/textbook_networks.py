"""Small networks from textbooks, with their rate constants, and how their data are simulated and written.

Every reaction is mass action: rate = k times the product of concentration^order over the species left of the arrow.
Number and times of the samples follow the dynamics, as in a sensible experiment: no species changes by more than a
fraction of its range from one sample to the next (`largest_step`). Samples are equally spaced for systems with one
timescale, and logarithmically spaced where the rates of reactions differ by orders of magnitude.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.integrate
from jaxtyping import Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.formats import mathml
from metabolismgraph.formats.sbml_writer import document, reaction_lines, species_line
from metabolismgraph.system.network import Reaction, ReactionNetwork
from metabolismgraph.system.observations import Observations

Amounts = Mapping[str, float]

# Tolerances of the solver; the absolute one is a share of the largest concentration. It is far below all measured
# values: the rarest species, nine orders of magnitude below the most abundant, keeps all its digits.
_RELATIVE, _ABSOLUTE = 1e-10, 1e-18


@dataclasses.dataclass(frozen=True)
class KnownReaction:
    """A reaction with its true rate constant.

    Attributes:
        k: in concentration^(1 - order)/time.
        left, right: stoichiometry on both sides of the arrow.
        orders: of the rate law; those of mass action are `left`.
    """

    id: str
    k: float
    left: Amounts
    right: Amounts
    orders: Amounts

    @classmethod
    def parse(cls, id: str, k: float, equation: str) -> KnownReaction:
        """Make a reaction from an equation such as "A + 2 B -> C"; a side may be empty."""
        left, right = (_side(text) for text in equation.split("->"))
        return cls(id, k, left, right, left)

    @property
    def net(self) -> dict[str, float]:
        both = dict.fromkeys((*self.left, *self.right))
        change = {s: self.right.get(s, 0.0) - self.left.get(s, 0.0) for s in both}
        return {s: n for s, n in change.items() if n}

    @property
    def order(self) -> float:
        """The sum of all orders, which determines the unit of k."""
        return sum(self.orders.values(), 0.0)


def _side(text: str) -> dict[str, float]:
    side: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split("+"))):
        count, name = re.fullmatch(r"(\d*)\s*(\w+)", part).groups()  # type: ignore[union-attr]
        side[name] = side.get(name, 0.0) + float(count or 1)
    return side


@dataclasses.dataclass(frozen=True)
class TextbookNetwork:
    """A network with initial concentrations and sampling times.

    Attributes:
        name: as on the command line.
        source: author and year of the model, and of its numbers where they are from elsewhere.
        equations: id, rate constant and equation of every reaction, such as "bind 0.5: A + B -> C; decay 2: C ->".
        runs: initial concentrations of every run; a species that is not named starts at 0.
        times: of the samples of each run, from 0, in the time unit of the rate constants.
        sampling: why the samples lie where they do.
        fixed: species that the reactions do not change.
    """

    name: str
    source: str
    equations: str
    runs: tuple[Amounts, ...]
    times: Float[np.ndarray, " samples"]
    sampling: str
    fixed: tuple[str, ...] = ()

    @functools.cached_property
    def reactions(self) -> tuple[KnownReaction, ...]:
        rows = re.findall(r"(\w+) (\S+): ([^;]*)", self.equations)
        return tuple(KnownReaction.parse(name, float(k), equation) for name, k, equation in rows)

    @property
    def species(self) -> tuple[str, ...]:
        """Species in the order of their first appearance in the reactions."""
        return tuple(dict.fromkeys(s for r in self.reactions for s in (*r.left, *r.right)))

    @property
    def constants(self) -> dict[str, float]:
        return {r.id: r.k for r in self.reactions}

    @property
    def n_points(self) -> int:
        """Samples of all runs together."""
        return len(self.times) * len(self.runs)

    @property
    def t_end(self) -> float:
        return float(self.times[-1])


@dataclasses.dataclass(frozen=True)
class Table:
    """Simulated measurements: one row per sample, the runs one after the other."""

    species: tuple[str, ...]
    time: Float[np.ndarray, " samples"]
    run: Int[np.ndarray, " samples"]
    concentration: Float[np.ndarray, "samples species"]

    @property
    def n_points(self) -> int:
        return len(self.time)

    def runs(self) -> list[Table]:
        """Every run as a separate table."""
        rows = [self.run == run for run in np.unique(self.run)]
        return [Table(self.species, self.time[r], self.run[r], self.concentration[r]) for r in rows]


# -- simulation


def rates(reactions: Sequence[KnownReaction], species: Sequence[str], c: np.ndarray) -> np.ndarray:
    """Rate of every reaction; the last axis of c is species, that of the result reactions."""
    index = {s: i for i, s in enumerate(species)}
    columns = []
    for reaction in reactions:
        rate = np.full(c.shape[:-1], reaction.k)
        for name, order in reaction.orders.items():
            rate = rate * c[..., index[name]] ** order
        columns.append(rate)
    return np.stack(columns, axis=-1)


def stoichiometry(
    reactions: Sequence[KnownReaction], species: Sequence[str], fixed: Sequence[str]
) -> Float[np.ndarray, "species reactions"]:
    """Net stoichiometric coefficients; rows of fixed species are zero."""
    return np.array([[0.0 if s in fixed else r.net.get(s, 0.0) for r in reactions] for s in species])


def simulate_run(
    network: TextbookNetwork, start: np.ndarray, times: Float[np.ndarray, " samples"]
) -> Float[np.ndarray, "samples species"]:
    """Concentrations at `times`, from `start` at time 0.

    Raises:
        RuntimeError: the solver gave up.
    """
    species = network.species
    matrix = stoichiometry(network.reactions, species, network.fixed)
    # The tolerance of the solver is for concentrations around 1; some networks are in moles per litre.
    scale = float(start.max()) or 1.0

    def slope(_: float, c: np.ndarray) -> np.ndarray:
        return np.asarray(matrix @ rates(network.reactions, species, c * scale) / scale)

    found = scipy.integrate.solve_ivp(
        slope, (0.0, times[-1]), start / scale, method="LSODA", t_eval=times, rtol=_RELATIVE, atol=_ABSOLUTE
    )
    if not found.success:
        raise RuntimeError(f"{network.name}: {found.message}")
    return np.asarray(np.maximum(found.y.T * scale, 0.0))


def initial(network: TextbookNetwork, run: int) -> np.ndarray:
    """Concentrations at the start of a run, in the order of the species."""
    return np.array([network.runs[run].get(s, 0.0) for s in network.species])


def simulate(network: TextbookNetwork) -> Table:
    """Simulate all runs of a network at its sampling times.

    Raises:
        RuntimeError: the solver gave up.
    """
    times = network.times
    found = [simulate_run(network, initial(network, r), times) for r in range(len(network.runs))]
    return Table(
        network.species,
        np.tile(times, len(found)),
        np.repeat(np.arange(len(found)), len(times)),
        np.concatenate(found),
    )


def largest_step(table: Table) -> float:
    """The largest change of any species between two samples, as a share of the range of its run."""
    largest = 0.0
    for c in (run.concentration for run in table.runs()):
        spread = np.ptp(c, axis=0)
        moving = spread > 1e-9 * np.max(c, axis=0, initial=1e-300)
        if moving.any():
            largest = max(largest, float(np.max(np.abs(np.diff(c[:, moving], axis=0)) / spread[moving])))
    return largest


# -- files


def as_network(
    name: str, reactions: Sequence[KnownReaction], species: Sequence[str], fixed: Sequence[str]
) -> ReactionNetwork:
    """The network as a `ReactionNetwork` with known mass action laws."""
    known = [Reaction(r.id, r.orders, r.net, mass_action=True) for r in reactions]
    return ReactionNetwork.from_reactions(name, species, known, fixed)


def as_observations(network: ReactionNetwork, table: Table) -> Observations:
    return Observations(network, table.time, table.run, table.concentration)


def write_network(
    name: str, reactions: Sequence[KnownReaction], species: Sequence[str], fixed: Sequence[str], path: Path
) -> None:
    """Write SBML Level 3 Version 2 with mass action laws; the rate constants, to be found, have no value."""
    lists = {
        "Compartments": ['      <compartment id="cell" spatialDimensions="3" size="1" constant="true"/>'],
        "Species": [species_line(s, "cell", s in fixed) for s in species],
        "Parameters": [f'      <parameter id="k_{r.id}" constant="true"/>' for r in reactions],
        "Reactions": [line for r in reactions for line in reaction_lines(r.id, r.left, r.right, [_law_line(r)])],
    }
    write_bytes(path, document(name, lists).encode())


def _law_line(reaction: KnownReaction) -> str:
    law = mathml.mass_action(f"k_{reaction.id}", {s: mathml.name(s) for s in reaction.orders}, reaction.orders, None)
    return f"        <kineticLaw>{mathml.math(law)}</kineticLaw>"


# -- the networks


def _enzyme(name: str, enzyme: str, substrate: str, product: str, bind: float, free: float, turn: float) -> str:
    """Binding, release and turnover of one enzyme on one substrate."""
    bound = f"{enzyme}_{substrate}"
    return (
        f"{name}_bind {bind}: {enzyme} + {substrate} -> {bound}; "
        f"{name}_free {free}: {bound} -> {enzyme} + {substrate}; "
        f"{name}_turn {turn}: {bound} -> {enzyme} + {product}; "
    )


def _gene(i: int, repressor: int) -> str:
    """One gene of the repressilator: two molecules of the repressor bind and silence it."""
    return (
        f"silence{i} 0.05: G{i} + 2 P{repressor} -> R{i}; wake{i} 5.0: R{i} -> G{i} + 2 P{repressor}; "
        f"transcribe{i} 60.0: G{i} -> G{i} + M{i}; leak{i} 0.06: R{i} -> R{i} + M{i}; decay{i} 1.0: M{i} ->; "
        f"translate{i} 1.0: M{i} -> M{i} + P{i}; degrade{i} 1.0: P{i} ->; "
    )


def _logarithmic(first: float, end: float, count: int) -> Float[np.ndarray, " samples"]:
    """Times 0 and, at logarithmic distances, from `first` to `end`."""
    return np.concatenate([[0.0], np.geomspace(first, end, count - 1)])


_HUANG_FERRELL = (1000.0, 150.0, 150.0)  # per µM and minute, per minute, per minute: the same for every enzyme
_CASCADE = (
    *(("activate", "E1", "K3", "K3p"), ("deactivate", "E2", "K3p", "K3")),
    *(("k2_first", "K3p", "K2", "K2p"), ("k2_back", "F2", "K2p", "K2")),
    *(("k2_second", "K3p", "K2p", "K2pp"), ("k2_undo", "F2", "K2pp", "K2p")),
    *(("k1_first", "K2pp", "K", "Kp"), ("k1_back", "F1", "Kp", "K")),
    *(("k1_second", "K2pp", "Kp", "Kpp"), ("k1_undo", "F1", "Kpp", "Kp")),
)

NETWORKS: tuple[TextbookNetwork, ...] = (
    TextbookNetwork(
        name="linear_chain",
        source="Harcourt & Esson 1866 (consecutive first-order reactions); numbers ours",
        equations="first 1.0: A -> B; second 0.5: B -> C; third 0.2: C -> D",
        runs=({"A": 1.0},),
        times=np.linspace(0.0, 20.0, 150),
        sampling="seven samples within 1/k of the fastest step; to four times 1/k of the slowest",
    ),
    TextbookNetwork(
        name="reversible_chain",
        source="Lowry & John 1910 (reversible consecutive reactions); numbers ours",
        equations="ab 1.0: A -> B; ba 0.4: B -> A; bc 0.6: B -> C; cb 0.3: C -> B",
        runs=({"A": 1.0}, {"C": 1.0, "B": 0.2}),
        times=np.linspace(0.0, 8.0, 60),
        sampling="from both ends of the chain, until both are near equilibrium; seven samples within 1/k",
    ),
    TextbookNetwork(
        name="butene_isomers",
        source="Wei & Prater 1962 (butene isomers on alumina, relative rate constants)",
        equations="one_to_cis 10.344: B1 -> Cis; cis_to_one 4.623: Cis -> B1; one_to_trans 3.724: B1 -> Trans; "
        "trans_to_one 1.0: Trans -> B1; cis_to_trans 5.616: Cis -> Trans; trans_to_cis 3.371: Trans -> Cis",
        runs=({"B1": 1.0}, {"Cis": 1.0}, {"Trans": 1.0}),
        times=np.linspace(0.0, 0.6, 50),
        sampling="each pure isomer once, as in the paper; six samples within the fastest relaxation",
    ),
    TextbookNetwork(
        name="alpha_pinene",
        source="Box, Hunter, MacGregor & Erjavec 1973 (thermal isomerisation; per minute)",
        equations="dipentene 5.93e-5: Pinene -> Dipentene; ocimene 2.96e-5: Pinene -> Ocimene; "
        "pyronene 2.05e-5: Ocimene -> Pyronene; dimerise 27.5e-5: Ocimene -> Dimer; split 4.0e-5: Dimer -> Ocimene",
        runs=({"Pinene": 100.0},),
        times=np.linspace(0.0, 36420.0, 60),
        sampling="as long as the original; five samples within the fastest relaxation, which takes two days",
    ),
    TextbookNetwork(
        name="michaelis_menten",
        source="Michaelis & Menten 1913; numbers of Wilkinson 2006 (molar, seconds), with more substrate in run 2",
        equations=_enzyme("enzyme", "E", "S", "P", 1e6, 1e-4, 0.1),
        runs=({"S": 5e-7, "E": 2e-7}, {"S": 2e-6, "E": 2e-7}),
        times=_logarithmic(0.02, 60.0, 100),
        sampling="binding takes half a second at first, turnover a minute: logarithmic",
    ),
    TextbookNetwork(
        name="competitive_inhibition",
        source="Segel 1975 (enzyme with competitive inhibitor); numbers ours (µM, seconds)",
        equations=_enzyme("enzyme", "E", "S", "P", 1.0, 0.5, 0.3)
        + "inhibit 0.6: E + I -> EI; release 0.2: EI -> E + I",
        runs=({"E": 1.0, "S": 5.0, "I": 3.0}, {"E": 1.0, "S": 5.0}, {"E": 1.0, "S": 2.0, "I": 6.0}),
        times=_logarithmic(0.01, 20.0, 100),
        sampling="with, without and with much inhibitor; binding takes 0.15 s, turnover twenty: logarithmic",
    ),
    TextbookNetwork(
        name="product_inhibition",
        source="Cornish-Bowden 2012 (enzyme that its product blocks); numbers ours (µM, seconds)",
        equations=_enzyme("enzyme", "E", "S", "P", 2.0, 0.4, 1.0) + "block 1.5: E + P -> EP; unblock 0.8: EP -> E + P",
        runs=({"E": 0.5, "S": 4.0}, {"E": 0.5, "S": 4.0, "P": 3.0}),
        times=_logarithmic(0.005, 15.0, 120),
        sampling="with and without product; binding takes 0.1 s, turnover 10 s: logarithmic",
    ),
    TextbookNetwork(
        name="phosphorylation_cycle",
        source="Goldbeter & Koshland 1981 (covalent modification); numbers ours (µM, seconds)",
        equations=_enzyme("kinase", "K", "W", "Wp", 2.0, 0.5, 1.0)
        + _enzyme("phosphatase", "F", "Wp", "W", 1.5, 0.3, 0.8),
        runs=({"W": 5.0, "K": 0.5, "F": 0.4}, {"Wp": 5.0, "K": 0.5, "F": 0.4}),
        times=np.linspace(0.0, 12.0, 400),
        sampling="from both forms; binding takes 0.1 s, the cycle ten: a sample every 0.03 s",
    ),
    TextbookNetwork(
        name="mapk_cascade",
        source="Huang & Ferrell 1996 (µM, minutes)",
        equations="".join(_enzyme(*names, *_HUANG_FERRELL) for names in _CASCADE),
        runs=({"K3": 0.003, "K2": 1.2, "K": 1.2, "E1": 3e-5, "E2": 3e-4, "F2": 3e-4, "F1": 0.12},),
        times=_logarithmic(1e-4, 200.0, 1000),
        sampling="complexes form within milliminutes, the cascade answers within an hour: logarithmic",
    ),
    TextbookNetwork(
        name="dimerisation",
        source="Wilkinson 2006 (molar, seconds)",
        equations="dimerise 5e5: 2 P -> P2; split 0.2: P2 -> 2 P",
        runs=({"P": 5e-7}, {"P2": 2.5e-7}),
        times=np.linspace(0.0, 10.0, 40),
        sampling="from both sides to equilibrium, which takes three seconds: a sample every quarter",
    ),
    TextbookNetwork(
        name="receptor_internalisation",
        source="Lauffenburger & Linderman 1993 (epidermal growth factor; nM, minutes)",
        equations="bind 0.072: L + R -> C; dissociate 0.34: C -> L + R; take_up_free 0.03: R -> Ri; "
        "take_up_bound 0.3: C -> Ci; recycle 0.058: Ri -> R; degrade_free 0.0022: Ri ->; degrade_bound 0.0022: Ci ->; "
        "synthesise 0.3: -> R",
        runs=({"L": 10.0, "R": 10.0}, {"L": 50.0, "R": 10.0}),
        times=_logarithmic(0.01, 40.0, 100),
        sampling="low and high dose; binding takes a quarter of a minute, degradation longer than all: logarithmic",
    ),
    TextbookNetwork(
        name="autocatalysis",
        source="Ostwald 1883, Lotka 1910 (A + B -> 2 B); numbers ours",
        equations="convert 1.0: A + B -> 2 B",
        runs=({"A": 1.0, "B": 0.01},),
        times=np.linspace(0.0, 12.0, 50),
        sampling="the turn of the logistic curve takes four units: 16 samples",
    ),
    TextbookNetwork(
        name="cyclic_competition",
        source="Itoh 1973, Tainaka 1988 (rock, paper, scissors); numbers ours",
        equations="ab 1.0: A + B -> 2 B; bc 1.2: B + C -> 2 C; ca 0.8: C + A -> 2 A",
        runs=({"A": 0.6, "B": 0.3, "C": 0.1},),
        times=np.linspace(0.0, 60.0, 300),
        sampling="periods of about ten units, 50 samples each",
    ),
    TextbookNetwork(
        name="lotka_volterra",
        source="Lotka 1925, Volterra 1926; numbers of Wilkinson 2006",
        equations="birth 1.0: Prey -> 2 Prey; hunt 0.005: Prey + Pred -> 2 Pred; death 0.6: Pred ->",
        runs=({"Prey": 50.0, "Pred": 100.0},),
        times=np.linspace(0.0, 30.0, 300),
        sampling="three to four periods, 80 samples each",
    ),
    TextbookNetwork(
        name="resource_food_chain",
        source="May 1973 (resource, prey, predator by mass action); numbers ours",
        equations="supply 1.0: -> R; wash_out 0.1: R ->; graze 0.4: R + N -> 2 N; starve 0.2: N ->; "
        "hunt 0.5: N + Z -> 2 Z; die 0.3: Z ->",
        runs=({"R": 5.0, "N": 0.5, "Z": 0.1}, {"R": 1.0, "N": 2.0, "Z": 1.0}),
        times=np.linspace(0.0, 40.0, 300),
        sampling="the first bloom takes two units: a sample every 0.13",
    ),
    TextbookNetwork(
        name="brusselator",
        source="Prigogine & Lefever 1968 (A = 1, B = 3)",
        equations="feed 1.0: A -> A + X; autocatalyse 1.0: 2 X + Y -> 3 X; convert 1.0: B + X -> B + Y; "
        "drain 1.0: X ->",
        runs=({"A": 1.0, "B": 3.0, "X": 1.0, "Y": 1.0},),
        times=np.linspace(0.0, 20.0, 1000),
        sampling="periods of seven units with spikes of a fifth: a sample every 0.02",
        fixed=("A", "B"),
    ),
    TextbookNetwork(
        name="oregonator",
        source="Field & Noyes 1974 (f = 1; molar, seconds)",
        equations="start 1.34: A + Y -> X; inhibit 1.6e9: X + Y ->; autocatalyse 8e3: B + X -> B + 2 X + Z; "
        "disproportionate 4e7: 2 X ->; reset 1.0: Z -> Y",
        runs=({"A": 0.06, "B": 0.06, "X": 5.025e-11, "Y": 3e-7, "Z": 2.412e-8},),
        times=_logarithmic(1e-4, 12.0, 1000),
        sampling="bromide falls within seconds, bromous acid jumps within milliseconds, once: logarithmic",
        fixed=("A", "B"),
    ),
    TextbookNetwork(
        name="robertson",
        source="Robertson 1966",
        equations="slow 0.04: A -> B; fast 3e7: 2 B -> B + C; middle 1e4: B + C -> A + C",
        runs=({"A": 1.0},),
        times=_logarithmic(1e-5, 1e4, 400),
        sampling="from the rise of B within milliseconds to the hours of A: logarithmic",
    ),
    TextbookNetwork(
        name="schloegl",
        source="Schlögl 1972; numbers of Vellela & Qian 2009, from both sides of the threshold",
        equations=f"make 1.5e-7: A + 2 X -> A + 3 X; unmake {1e-4 / 6}: 3 X -> 2 X; feed 1e-3: B -> B + X; "
        "drain 3.5: X ->",
        runs=tuple({"A": 1e5, "B": 2e5, "X": x} for x in (300.0, 0.0, 900.0)),
        times=_logarithmic(0.01, 12.0, 120),
        sampling="three starts; they part within a tenth of a unit and settle within ten: logarithmic",
        fixed=("A", "B"),
    ),
    TextbookNetwork(
        name="selkov",
        source="Sel'kov 1968 (glycolytic oscillator, reduced to mass action)",
        equations="supply 0.6: -> S; leak 0.1: S -> P; autocatalyse 1.0: S + 2 P -> 3 P; drain 1.0: P ->",
        runs=({"S": 1.0, "P": 1.0},),
        times=np.linspace(0.0, 40.0, 500),
        sampling="periods of six to eight units, 90 samples each",
    ),
    TextbookNetwork(
        name="gray_scott",
        source="Gray & Scott 1984 (cubic autocatalysis in a stirred tank); numbers ours",
        equations="inflow 0.04: -> U; outflow 0.04: U ->; autocatalyse 1.0: U + 2 V -> 3 V; decay 0.1: V ->",
        runs=({"U": 1.0, "V": 0.3}, {"U": 0.5, "V": 0.5}),
        times=np.linspace(0.0, 60.0, 150),
        sampling="the pulse of V takes five to ten units: a sample every 0.4",
    ),
    TextbookNetwork(
        name="positive_feedback",
        source="Griffith 1968 (gene that its own dimer switches on); numbers ours",
        equations="bind 0.5: G + 2 P -> GP; free 1.0: GP -> G + 2 P; basal 0.2: G -> G + P; "
        "express 4.0: GP -> GP + P; degrade 0.5: P ->",
        runs=({"G": 1.0}, {"G": 1.0, "P": 3.0}, {"G": 0.2, "GP": 0.8, "P": 1.0}),
        times=np.linspace(0.0, 20.0, 200),
        sampling="switched off, pulsed and switched on; binding takes a fifth of a unit: a sample every tenth",
    ),
    TextbookNetwork(
        name="repressilator",
        source="Elowitz & Leibler 2000 (with binding and unbinding of the repressors); numbers ours",
        equations=_gene(1, 3) + _gene(2, 1) + _gene(3, 2),
        runs=({"G1": 1.0, "G2": 1.0, "G3": 1.0, "P1": 5.0, "P2": 1.0},),
        times=np.linspace(0.0, 30.0, 1000),
        sampling="unbinding takes a fifth of a unit, the cycle about ten: a sample every 0.03",
    ),
    TextbookNetwork(
        name="gene_expression",
        source="Thattai & van Oudenaarden 2001 (mRNA lives 2 min, protein 1 h, 10 proteins per mRNA; minutes)",
        equations="transcribe 0.6: D -> D + M; decay 0.347: M ->; translate 3.47: M -> M + P; degrade 0.01155: P ->",
        runs=({"D": 1.0}, {"D": 2.0, "P": 1500.0}),
        times=np.linspace(0.0, 60.0, 120),
        sampling="mRNA settles within three minutes: a sample every half minute, for one lifetime of the protein",
        fixed=("D",),
    ),
    TextbookNetwork(
        name="sir",
        source="Kermack & McKendrick 1927; influenza in a boarding school (Murray 2002; persons, days)",
        equations="infect 2.18e-3: S + I -> 2 I; recover 0.44: I -> R",
        runs=({"S": 762.0, "I": 1.0},),
        times=np.linspace(0.0, 15.0, 60),
        sampling="the epidemic grows e-fold in 0.8 days: four samples a day",
    ),
    TextbookNetwork(
        name="seir",
        source="Anderson & May 1991 (measles: 8 days latent, 5 infectious, each infects 15; shares, days)",
        equations="infect 3.0: S + I -> E + I; onset 0.125: E -> I; recover 0.2: I -> R",
        runs=({"S": 0.999, "E": 0.0, "I": 0.001},),
        times=np.linspace(0.0, 60.0, 120),
        sampling="the epidemic grows e-fold in two days: two samples a day",
    ),
    TextbookNetwork(
        name="virus_dynamics",
        source="Perelson & Nelson 1999 (HIV and its target cells; per microlitre, days)",
        equations="supply 10.0: -> T; die 0.02: T ->; infect 2.4e-5: T + V -> Ti; kill 0.24: Ti ->; "
        "bud 186.0: Ti -> Ti + V; clear 2.4: V ->",
        runs=({"T": 500.0, "V": 1.0},),
        times=np.linspace(0.0, 40.0, 400),
        sampling="clearance of the virus takes 0.4 days: a sample every tenth of a day",
    ),
    TextbookNetwork(
        name="consecutive_second_order",
        source="Frost & Schwemer 1952 (saponification of a diester); numbers ours (molar, seconds)",
        equations="first 1.0: A + B -> C + E; second 0.25: C + B -> D + E",
        runs=({"A": 0.5, "B": 1.0},),
        times=np.linspace(0.0, 20.0, 100),
        sampling="the first step takes one second: five samples within it",
    ),
    TextbookNetwork(
        name="lindemann",
        source="Lindemann 1922, Hinshelwood 1926 (activation by collisions); numbers ours",
        equations="activate 0.5: 2 A -> A + X; calm 2.0: X + A -> 2 A; react 1.0: X -> P",
        runs=({"A": 2.0}, {"A": 0.5}),
        times=_logarithmic(0.01, 10.0, 100),
        sampling="high and low pressure; the activated form settles within 0.2, the reaction takes ten: logarithmic",
    ),
    TextbookNetwork(
        name="fed_batch",
        source="Bailey & Ollis 1986 (fed culture; growth by mass action); numbers ours (g/l, hours)",
        equations="feed 0.5: -> S; grow 0.15: S + X -> 2 X; lyse 0.05: X -> W; produce 0.1: S + X -> X + P",
        runs=({"S": 8.0, "X": 0.2},),
        times=np.linspace(0.0, 20.0, 200),
        sampling="growth takes an hour at first, and the substrate runs out within two: ten samples an hour",
    ),
    TextbookNetwork(
        name="pharmacokinetics",
        source="Gibaldi & Perrier 1982 (gut, plasma, tissue; two doses; mg/l, hours)",
        equations="absorb 1.2: Gut -> Plasma; eliminate 0.3: Plasma -> Urine; distribute 0.8: Plasma -> Tissue; "
        "return_ 0.5: Tissue -> Plasma",
        runs=({"Gut": 10.0}, {"Plasma": 10.0}),
        times=_logarithmic(0.05, 12.0, 60),
        sampling="by mouth and by vein; first after three minutes, then farther and farther apart, as is usual",
    ),
)


def find(names: Sequence[str]) -> list[TextbookNetwork]:
    """The networks of these names, in the order of the list above; without names, all networks.

    Raises:
        InputError: there is none of that name.
    """
    known = {n.name for n in NETWORKS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"{unknown[0]!r} is no textbook network; there are {', '.join(sorted(known))}")
    return [n for n in NETWORKS if not names or n.name in names]
