"""Data folders and checkpoints as the published program leaves them, written with PyTorch itself.

Run as a program, it writes the files in tests/golden/published again: python tests/published_files.py
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

try:
    import torch
except ModuleNotFoundError:  # the tests read what was written before
    torch = None

GOLDEN = Path(__file__).parent / "golden" / "published"
STEP = 0.05
# Metabolite and order or coefficient, by reaction: a cycle A + B -> 2 B, 2 A -> C, -> A, one without participants, ...
SUBSTRATES = [{0: 1, 1: 1}, {1: 1, 2: 1}, {2: 1, 0: 1}, {3: 2}, {}, {3: 1, 4: 1}, {5: 1}, {}]
NET = [{0: -1, 1: 1}, {1: -1, 2: 1}, {2: -1, 0: 1}, {3: -2, 4: 2}, {3: 1, 5: 1}, {3: -1, 4: -1, 5: 2}, {5: -1}, {}]
TYPES = [0, 0, 0, 1, 1, 1]
LAMBDA_AND_BASELINE = [[0.01, 4.0], [0.02, 6.0]]


def graph(edges):
    rows = [(i, j, float(value)) for j, edge in enumerate(edges) for i, value in edge.items()]
    metabolite, reaction, value = zip(*rows, strict=True)
    return torch.tensor(metabolite), torch.tensor(reaction), torch.tensor(value)


def layers(sizes):
    made = []
    for a, b in itertools.pairwise(sizes):
        made += [torch.nn.Linear(a, b), torch.nn.Tanh()]
    return torch.nn.Sequential(*made[:-1])


def write_data(folder, *, frames=121, substrates=SUBSTRATES, net=NET, species=6, types=TYPES, p=LAMBDA_AND_BASELINE):
    """A data folder: mass action and homeostasis in Euler steps."""
    torch.manual_seed(1)
    sub, every = graph(substrates), graph(net)
    matrix = torch.zeros(species, len(net))
    matrix[every[0], every[1]] = every[2]
    log_k = torch.empty(len(net)).uniform_(-2, -1)
    p, types = torch.tensor(p), torch.tensor(types)
    x = torch.zeros(species, 8)
    x[:, 0], x[:, 3], x[:, 6] = torch.arange(species), torch.empty(species).uniform_(1, 9), types.float()
    xs, ys = [], []
    for _ in range(frames):
        c = x[:, 3]
        product = torch.zeros(len(net)).index_add(0, sub[1], sub[2] * c[sub[0]].log()).exp()
        y = matrix @ (10**log_k * product) - p[types, 0] * (c - p[types, 1])
        xs.append(x.numpy().copy())
        ys.append(y[:, None].numpy())
        x[:, 3] = torch.clamp(c + STEP * y, min=0)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "x_list_0.npy", np.array(xs))
    np.save(folder / "y_list_0.npy", np.array(ys))
    torch.save(matrix, folder / "stoichiometry.pt")
    torch.save({"sub": sub, "all": every}, folder / "stoich_graph.pt")
    torch.save({"log_k": log_k, "p": p, "sto_all": every[2]}, folder / "gt_model.pt")
    torch.save(torch.nn.Parameter(p), folder / "model_p_0.pt")


class Model(torch.nn.Module if torch else object):
    """The published equations."""

    def __init__(self, folder, aggr_type, hidden, depth, seed):
        super().__init__()
        torch.manual_seed(seed)
        (self.aggr_type, (species, reactions)) = aggr_type, torch.load(folder / "stoichiometry.pt").shape
        parts = torch.load(folder / "stoich_graph.pt")
        for part, names in (("sub", ("met_sub", "rxn_sub")), ("all", ("met_all", "rxn_all"))):
            for name, value in zip(names, parts[part], strict=False):
                self.register_buffer(name, value)
        index = {edge: e for e, edge in enumerate(zip(self.met_all.tolist(), self.rxn_all.tolist(), strict=True))}
        pairs = zip(self.met_sub.tolist(), self.rxn_sub.tolist(), strict=True)
        self.register_buffer("sub_to_all", torch.tensor([index[edge] for edge in pairs]))
        count = torch.bincount(self.rxn_sub, minlength=reactions).float().clamp(min=1)
        self.register_buffer("n_sub_per_rxn", count)
        self.a = torch.nn.Parameter(torch.randn(species, 2))
        self.sto_all = torch.nn.Parameter(parts["all"][2].clone(), requires_grad=False)
        self.log_k = torch.nn.Parameter(torch.empty(reactions).uniform_(-2, -1))
        self.node_func = layers([3, *[hidden] * (depth - 1), 1])
        self.substrate_func = layers([2, *[hidden] * (depth - 1), 1])

    def forward(self, c):
        order = self.sto_all[self.sub_to_all].abs()
        outputs = self.substrate_func(torch.stack([c[self.met_sub], order], dim=-1))[:, 0]
        empty = torch.zeros(len(self.log_k))
        if self.aggr_type == "mul":
            total = empty.index_add(0, self.rxn_sub, outputs.abs().clamp(min=1e-8).log()).exp()
        else:
            total = empty.index_add(0, self.rxn_sub, outputs)
        flux = 10**self.log_k * torch.nn.functional.softplus(total)
        reactions = torch.zeros(len(c)).index_add(0, self.met_all, self.sto_all * flux[self.rxn_all])
        return reactions + self.node_func(torch.cat([c[:, None], self.a], dim=1))[:, 0]

    def corrected_log_k(self):
        """As the published program compares it with the truth."""
        alpha = self.substrate_func(torch.ones(1, 2)).norm()
        return self.log_k + self.n_sub_per_rxn * torch.log10(alpha.abs() + 1e-8)


def write_checkpoint(model, path, c):
    """A checkpoint after one step of Adam; returns the dc/dt that the model predicts at concentrations."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(c[0]).pow(2).sum().backward()
    optimizer.step()
    torch.save({"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}, path)
    with torch.no_grad():
        return torch.stack([model(each) for each in c]).numpy(), model.corrected_log_k().numpy()


def write_all(folder, **settings):
    """A data folder, a checkpoint per aggregation, and what the models predict for concentrations, zeros included."""
    write_data(folder, **settings)
    x = np.load(folder / "x_list_0.npy")[::20, :, 3].copy()
    x[-1, ::2] = 0
    expected = {"c": x}
    for number, (aggr_type, depth) in enumerate((("mul", 3), ("add", 2))):
        model = Model(folder, aggr_type, 8, depth, seed=number)
        predicted, log_k = write_checkpoint(model, folder / f"model_{aggr_type}.pt", torch.tensor(x))
        expected |= {f"{aggr_type}_dcdt": predicted, f"{aggr_type}_log_k": log_k}
    np.savez(folder / "expected.npz", **expected)


if __name__ == "__main__":
    write_all(GOLDEN)
    sys.stdout.write(f"written with PyTorch {torch.__version__}: {sorted(p.name for p in GOLDEN.iterdir())}\n")
