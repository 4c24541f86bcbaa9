"""What the figures show: every file there, the right number of marks, and no data that breaks them."""

import functools
import io

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from metabolismgraph import plot
from metabolismgraph.config import Plotting
from metabolismgraph.errors import InputError
from metabolismgraph.evaluation.evaluate import Evaluation
from metabolismgraph.figures import _figures, check_colormap, draw_all, dynamics, homeostasis, rates, training
from metabolismgraph.figures.scene import Groups, Scene
from metabolismgraph.figures.style import (
    OKABE_ITO,
    applied,
    log_axis,
    palette,
    panels,
    r2_text,
    robust_limits,
    scientific,
)
from metabolismgraph.figures.summary import summary

STEPS = 70
ALWAYS = {
    "tmp_training/rate_constants/comparison_p2_{step}.png",
    "tmp_training/loss.tif",
    "figures/mlp_sub.png",
    "figures/traces.png",
    "figures/singular_values.png",
    "figures/summary.png",
}
WITH_PHASE2 = {
    "tmp_training/function/rate_func/MLP_node_p2_{step}.png",
    "tmp_training/embedding/embedding_p2_{step}.png",
    "figures/homeostasis.png",
    "figures/kinograph.png",
}
METRICS = {
    "rate_constants_R2": 0.91,
    "rate_constants_R2_identifiable": 0.999999,
    "log_k_median_error_identifiable": 1e-7,
    "MLP_sub_R2": 1.0,
    "activity_rank": 4,
    "embedding_cluster_acc": 1.0,
    "embedding_silhouette": None,
}
TRUTH = ("true_log_k", "true_law_f", "true_type", "true_slope", "true_offset")
PHASE1 = ("log_k", "log_k_error", "identifiable", "phase1_loss", "singular_value", "concentration", "time", "run")
LAW = ("law_concentration", "law_f", "held_out", "true_log_k", "true_law_f")


def made_up(species=12, reactions=20, types=3, runs=1, dim=2, orders=(1.0, 2.0)):
    """What an evaluation of a perfect fit with four reactions that are not identifiable would hold."""
    rng = np.random.default_rng(0)
    frames, sweep = 40, np.linspace(0, 40, 50)
    t = np.arange(frames) * 0.1
    concentration = 5 + np.sin(t[:, None] + np.arange(species)) * np.linspace(0, 4, species)
    concentration = np.tile(concentration, (runs, 1))
    held_out = np.tile(np.arange(frames) >= 32, runs)
    derivative = rng.normal(size=(runs * (frames - 1), species))
    true_log_k = np.linspace(-2, -1, reactions)
    identifiable = np.arange(reactions) >= 4
    true_type = np.arange(species) % types
    true_slope, true_offset = -0.001 * (1 + true_type), 0.004 * (1 + true_type)
    slope, offset = true_slope * rng.uniform(0.99, 1.01, species), true_offset * rng.uniform(0.99, 1.01, species)
    c = np.geomspace(1e-3, 50, 30)
    law = np.stack([c**s for s in orders])
    return xr.Dataset(
        {
            "log_k": ("reaction", np.where(identifiable, true_log_k, -1.5)),
            "log_k_error": ("reaction", np.where(identifiable, 1e-6, np.inf)),
            "identifiable": ("reaction", identifiable),
            "phase1_loss": ("phase1_iteration", np.geomspace(1, 1e-12, 15)),
            "true_log_k": ("reaction", true_log_k),
            "singular_value": ("component", np.geomspace(100, 1e-6, species)),
            "concentration": (("frame", "species"), concentration),
            "time": ("frame", np.tile(t, runs)),
            "run": ("frame", np.repeat(np.arange(runs), frames)),
            "held_out": ("frame", held_out),
            "law_concentration": ("law_point", c),
            "law_order": ("law_order", np.array(orders)),
            "law_f": (("law_order", "law_point"), law * (1 + 1e-6 * np.sin(c))),
            "true_law_f": (("law_order", "law_point"), law),
            "sweep": ("sweep", sweep),
            "node_curve": (("species", "sweep"), slope[:, None] * sweep + offset[:, None]),
            "slope": ("species", slope),
            "offset": ("species", offset),
            "slope_observed": ("species", slope),
            "offset_observed": ("species", offset),
            "lowest": ("species", concentration.min(axis=0)),
            "highest": ("species", concentration.max(axis=0)),
            "moving": ("species", np.ones(species, dtype=bool)),
            "embedding": (("species", "dim"), true_type[:, None] + 0.01 * rng.normal(size=(species, dim))),
            "cluster": ("species", types - 1 - true_type),
            "phase2_loss": ("phase2_step", np.geomspace(1e-4, 1e-9, STEPS)),
            "phase2_components": (("component_name", "phase2_gradient_step"), np.geomspace(1, 1e-3, 50)[None]),
            "true_type": ("species", true_type),
            "true_slope": ("species", true_slope),
            "true_offset": ("species", true_offset),
            "derivative": (("transition", "species"), derivative),
            "predicted_derivative": (("transition", "species"), derivative + 1e-6 * rng.normal(size=derivative.shape)),
            "transition_time": ("transition", np.tile(t[:-1], runs)),
            "predicted_concentration": (("frame", "species"), np.where(held_out[:, None], concentration, np.nan)),
        },
        coords={
            "species": [f"M{i}" for i in range(species)],
            "reaction": [f"R{j}" for j in range(reactions)],
            "component_name": ["similarity"],
        },
    )


def scene_of(data, **metrics):
    return Scene.of(data, METRICS | metrics, "okabe_ito")


def without_truth(data):
    return data.drop_vars(TRUTH)


def drawn(draw, scene, render=False):
    """The figure of a drawing function; rendered where data may break it, for much goes wrong only then."""
    with applied():
        figure = draw(scene)
        if render:
            figure.savefig(io.BytesIO(), dpi=40)
    return figure


ALL_DRAWINGS = (
    rates.comparison,
    rates.rate_law,
    homeostasis.node_function,
    homeostasis.embedding,
    homeostasis.set_points,
    dynamics.traces,
    dynamics.kinograph,
    dynamics.singular_values,
    training.loss,
    summary,
)


@functools.cache
def example(draw, truth=True):
    """A figure of the made-up data, drawn once for all tests that look at it."""
    return drawn(draw, scene_of(made_up() if truth else without_truth(made_up())))


def legend_of(figure):
    """The words of the legend of a figure."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


def lines(ax, **looks):
    """The lines of a panel with given properties."""
    return [line for line in ax.lines if all(getattr(line, f"get_{k}")() == v for k, v in looks.items())]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    reports = []
    before = dict(mpl.rcParams)
    written = draw_all(made_up(), METRICS, folder, Plotting(dpi=50), progress=lambda *report: reports.append(report))
    assert dict(mpl.rcParams) == before, "Matplotlib's settings are the caller's own"
    return folder, written, reports


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def expected(*parts, steps=STEPS):
    return {name.format(step=f"{steps:06d}") for part in parts for name in part}


def test_every_file_is_drawn(run_folder):
    folder, written, _ = run_folder
    assert names(folder) == expected(ALWAYS, WITH_PHASE2) == {str(path.relative_to(folder)) for path in written}


def test_files_are_pictures_of_the_resolution_asked_for(run_folder):
    for path in run_folder[1]:
        with Image.open(path) as image:
            assert image.format == ("TIFF" if path.suffix == ".tif" else "PNG")
            assert round(float(image.info["dpi"][0])) == 50
            assert 200 <= image.width <= 600
            assert len(np.unique(np.asarray(image.convert("L")))) > 10, f"{path.name} is blank"


def test_progress_ends_at_one(run_folder):
    shares = [done for _, done, _ in run_folder[2]]
    assert {stage for stage, *_ in run_folder[2]} == {"figures"}
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_phase2_loss_is_a_thick_blue_line(run_folder):
    with Image.open(run_folder[0] / "tmp_training/loss.tif") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels == (0, 0, 255)).all(axis=-1).sum() > 200


def test_a_noisy_loss_has_a_running_mean():
    """By which one sees that it decreases; a smooth one is a single line."""
    smooth = np.geomspace(1e-4, 1e-9, 500)
    assert training._running_mean(smooth) is None
    noise = np.random.default_rng(0).lognormal(0, 1, 500)
    found = training._running_mean(np.linspace(2, 1, 500) * noise)
    assert found[400:].mean() < found[:100].mean()
    assert np.std(np.diff(found)) < 0.2 * np.std(np.diff(noise))
    assert training._running_mean(np.full(200, 3.0) + np.tile([1.0, -1.0], 100)) == pytest.approx(3.0, abs=0.4)


def test_without_truth_the_same_files():
    assert set(_figures(scene_of(without_truth(made_up())))) == expected(ALWAYS, WITH_PHASE2)


def test_without_phase2_what_phase1_knows(tmp_path):
    draw_all(made_up()[[*PHASE1, *LAW]], METRICS, tmp_path, Plotting(dpi=40))
    assert names(tmp_path) == expected(ALWAYS, steps=0)


def test_a_network_without_rate_law_or_phase2():
    scene = scene_of(made_up()[list(PHASE1)])
    assert set(_figures(scene)) == expected(ALWAYS - {"figures/mlp_sub.png"}, steps=0)
    assert len(drawn(summary, scene, render=True).axes) == 1
    no_law = scene_of(made_up().drop_vars(["law_f", "true_law_f"]))
    assert [ax.axison for ax in drawn(summary, no_law, render=True).axes] == [True, True, True, False]


def test_an_evaluation_that_was_saved_and_loaded(tmp_path):
    made_up().to_netcdf(tmp_path / "evaluation.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "evaluation.nc", engine="h5netcdf") as data:
        scene = scene_of(data.load())
    for draw in (rates.comparison, homeostasis.node_function, dynamics.traces):
        drawn(draw, scene, render=True)


@pytest.mark.parametrize("draw", ALL_DRAWINGS)
@pytest.mark.parametrize("truth", [True, False])
def test_every_panel_is_labelled(draw, truth):
    figure = example(draw, truth)
    found = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert all(ax.get_xlabel() for ax in found if ax.get_subplotspec().is_last_row())
    assert all(ax.get_ylabel() for ax in found if ax.get_subplotspec().is_first_col()) or figure.get_supylabel()


@pytest.mark.parametrize("draw", ALL_DRAWINGS)
@pytest.mark.parametrize("truth", [True, False])
def test_no_text_needs_the_parser_of_formulas(draw, truth):
    """It takes as long as a whole figure; Unicode has the powers and indices that are needed."""
    written = [text.get_text() for text in example(draw, truth).findobj(Text)]
    assert any(written)
    assert not [text for text in written if "$" in text]


@pytest.mark.parametrize("draw", [training.loss, dynamics.singular_values])
def test_what_is_counted_has_ticks_at_whole_numbers(draw):
    scene = scene_of(made_up(species=3).isel(phase1_iteration=slice(3)))
    for ax in drawn(draw, scene, render=True).axes:
        ticks = ax.get_xticks()
        assert np.array_equal(ticks, np.round(ticks))


@pytest.mark.parametrize("types", [1, 3, 8])
def test_one_dashed_truth_per_type(types):
    figure = drawn(homeostasis.node_function, scene_of(made_up(species=16, types=types)))
    dashed = lines(figure.axes[0], linestyle="--")
    assert len(dashed) == types
    for t, line in enumerate(dashed):
        assert np.allclose(line.get_ydata(), -0.001 * (1 + t) * line.get_xdata() + 0.004 * (1 + t))


def test_without_truth_no_dashed_line_but_clusters():
    figure = example(homeostasis.node_function, truth=False)
    assert not lines(figure.axes[0], linestyle="--")
    assert [text.get_text() for text in figure.legends[0].texts] == [f"cluster {g} (4)" for g in range(3)]


def test_a_strong_line_where_a_species_was_observed_and_a_faint_one_beyond():
    data = made_up()
    figure = drawn(homeostasis.node_function, scene_of(data))
    faint, strong = figure.axes[0].collections[:2]  # of type 0
    assert faint.get_alpha() < strong.get_alpha()
    for i, path in zip(np.flatnonzero(data["true_type"] == 0), strong.get_paths(), strict=True):
        assert path.vertices[0, 0] == pytest.approx(float(data["lowest"][i]))
        assert path.vertices[-1, 0] == pytest.approx(float(data["highest"][i]))


def test_fixed_species_have_no_curve_and_no_group():
    data = made_up()
    data["moving"][:2] = False
    data["cluster"][:2] = -1
    scene = scene_of(data)
    assert sum(len(scene.groups.species(g)) for g in scene.groups.colours) == 10
    assert sum(len(c.get_paths()) for c in drawn(homeostasis.node_function, scene).axes[0].collections) == 20


@pytest.mark.parametrize("truth", [True, False])
def test_reactions_that_are_not_identifiable_are_marked(truth):
    figure = example(rates.comparison, truth)
    for ax in figure.axes:
        marked = lines(ax, marker="^")
        assert [len(line.get_xdata()) for line in marked] == [4]
        assert sum(len(line.get_xdata()) for line in lines(ax, marker="o")) == 16


def test_r2_of_all_and_of_the_identifiable():
    ax = example(rates.comparison).axes[0]
    assert ax.get_legend().get_title().get_text() == "all (20): R² = 0.91"
    assert ax.get_legend().texts[0].get_text() == "identifiable (16): R² > 0.9999"


def test_the_legend_of_rate_constants_covers_no_point():
    figure = example(rates.comparison)
    ax = figure.axes[0]
    figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    for line in lines(ax, marker="o") + lines(ax, marker="^"):
        places = ax.transData.transform(np.column_stack(line.get_data()))
        assert not any(box.contains(*place) for place in places)


@pytest.mark.parametrize(("spread", "insets"), [(1e-4, 1), (0.3, 0), (0.0, 0)])
def test_a_spread_within_types_that_cannot_be_seen_has_an_inset(spread, insets):
    data = made_up()
    rng = np.random.default_rng(3)
    centres = np.array([[-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    at = centres[data["true_type"].values] + spread * rng.uniform(-1, 1, data["embedding"].shape)
    data["embedding"] = (("species", "dim"), at)
    ax = drawn(homeostasis.embedding, scene_of(data)).axes[0]
    assert len(ax.child_axes) == insets
    for inset in ax.child_axes:
        shown = sum(len(line.get_xdata()) for line in inset.lines)
        assert shown == len(at)
        box = inset.get_position()
        assert 0 <= box.x0 < box.x1 <= 1


def test_few_reactions_are_named():
    ax = example(rates.comparison, truth=False).axes[1]
    assert {label.get_text() for label in ax.get_xticklabels()} == {f"R{j}" for j in range(20)}
    ax = drawn(rates.comparison, scene_of(without_truth(made_up(reactions=60)))).axes[1]
    assert ax.get_xlabel() == "reactions, sorted by rate constant"


def test_a_cluster_has_the_colour_of_its_type():
    scene = scene_of(made_up())  # cluster g is type 2 - g
    assert [scene.clusters.colours[g] for g in range(3)] == [scene.types.colours[2 - g] for g in range(3)]


def test_clusters_that_share_a_type_have_colours_of_their_own():
    types = Groups.of("type", np.zeros(6, dtype=int), "okabe_ito")
    clusters = Groups.of("cluster", np.array([0, 0, 0, 1, 1, -1]), "okabe_ito").coloured_like(types)
    assert clusters.colours[0] == types.colours[0]
    assert clusters.colours[1] != clusters.colours[0]


def test_the_residual_has_its_own_scale_and_says_so():
    figure = example(dynamics.kinograph)
    observed, predicted, residual = (ax.images[0] for ax in figure.axes[:3])
    assert observed.get_clim() == predicted.get_clim()
    for image in (observed, residual):
        assert image.get_clim()[0] == -image.get_clim()[1]
    assert "times finer" in figure.axes[2].get_title(loc="left")
    assert any("10⁻⁶" in ax.get_ylabel() for ax in figure.axes[3:])


def test_time_axis_of_steps_that_differ():
    data = made_up()
    data["transition_time"] = "transition", np.geomspace(1, 100, 39)
    figure = drawn(dynamics.kinograph, scene_of(data))
    bottom = figure.axes[2]
    column = {
        label.get_text(): place for label, place in zip(bottom.get_xticklabels(), bottom.get_xticks(), strict=True)
    }
    assert column["60"] == pytest.approx(np.interp(60, data["transition_time"], np.arange(39)))


def test_runs_are_told_apart():
    scene = scene_of(made_up(runs=3))
    kinograph = drawn(dynamics.kinograph, scene)
    assert [label.get_text() for label in kinograph.axes[2].get_xticklabels()] == ["run 0", "run 1", "run 2"]
    assert [line.get_xdata()[0] for line in lines(kinograph.axes[1], color="black")] == [39.0, 78.0]
    traces = drawn(dynamics.traces, scene)
    assert all(len(lines(ax, linestyle="-")) == 3 for ax in traces.axes)
    assert len({line.get_color() for line in lines(traces.axes[0], linestyle="-")}) == 3


@pytest.mark.parametrize(("species", "shown"), [(1, 1), (5, 5), (6, 5), (100, 5)])
def test_traces_show_all_of_few_species(species, shown):
    assert len(drawn(dynamics.traces, scene_of(made_up(species=species, types=1))).axes) == shown


def test_held_out_frames_show_a_rollout_of_the_model():
    data = made_up()
    first = drawn(dynamics.traces, scene_of(data)).axes[0]
    [measured], [predicted] = lines(first, linestyle="-"), lines(first, linestyle="--")
    np.testing.assert_array_equal(predicted.get_ydata()[:32], np.nan)
    np.testing.assert_array_equal(predicted.get_ydata()[32:], measured.get_ydata()[32:])
    assert legend_of(drawn(dynamics.traces, scene_of(data)))[0] == "model, a rollout from the first held-out sample"
    fitted = data.assign(fitted_concentration=data["predicted_concentration"] + 1)
    first = drawn(dynamics.traces, scene_of(fitted))
    np.testing.assert_array_equal(lines(first.axes[0], linestyle="--")[0].get_ydata(), predicted.get_ydata() + 1)
    assert legend_of(first)[0] == "model, from fitted states"
    without = drawn(dynamics.traces, scene_of(data.drop_vars("predicted_concentration")))
    assert not lines(without.axes[0], linestyle="--")


@pytest.mark.parametrize("value", [1e300, np.inf, -np.inf, np.nan])
def test_a_rollout_that_diverges_leaves_the_axis_to_the_data(value):
    data = made_up()
    before = [ax.get_ylim() for ax in drawn(dynamics.traces, scene_of(data)).axes]
    data["predicted_concentration"][35:] = value
    assert [ax.get_ylim() for ax in drawn(dynamics.traces, scene_of(data), render=True).axes] == before


def test_figures_of_the_data_alone_carry_no_warning(tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(Figure, "suptitle", lambda *_, **__: warned[-1].append(True))
    for data in (made_up(), made_up().drop_vars("predicted_concentration")):
        for name in ("figures/traces", "figures/singular", "figures/summary"):
            warned.append([])
            draw_all(data, METRICS | {"trustworthy": False}, tmp_path, Plotting(dpi=30), below=name)
    assert [bool(found) for found in warned] == [True, False, True, False, False, True]


def test_held_out_frames_are_shaded_and_may_be_none():
    data = made_up()
    assert all(len(ax.patches) == 1 for ax in drawn(dynamics.traces, scene_of(data)).axes)
    for none in (data.drop_vars("held_out"), data.assign(held_out=("frame", np.zeros(40, dtype=bool)))):
        assert not any(ax.patches for ax in drawn(dynamics.traces, scene_of(none)).axes)
        assert drawn(dynamics.kinograph, scene_of(none)).axes[0].get_title(loc="right") == ""


def test_activity_rank_splits_the_spectrum():
    inside, rest = example(dynamics.singular_values).axes[0].lines
    assert (len(inside.get_xdata()), len(rest.get_xdata())) == (4, 8)


@pytest.mark.parametrize("orders", [(1.0,), (0.5, 1.0, 2.0)])
def test_a_rate_law_per_order(orders):
    upper, lower = drawn(rates.rate_law, scene_of(made_up(orders=orders))).axes
    assert len(lines(upper, linestyle="--")) == len(lower.lines) == len(orders)
    assert upper.get_xscale() == upper.get_yscale() == lower.get_yscale() == "log"


def test_without_truth_the_rate_law_stands_against_mass_action():
    data = without_truth(made_up())
    upper, lower = drawn(rates.rate_law, scene_of(data)).axes
    assert len(lines(upper, linestyle=":")) == 2
    assert lower.get_ylim() == pytest.approx((0.95, 1.05))
    saturating = data.assign(law_f=data["law_f"] / (1 + data["law_concentration"]))
    assert drawn(rates.rate_law, scene_of(saturating)).axes[1].get_yscale() == "log"


def hopeless(data):
    """Everything that training can make of hopeless data: not finite, zero, constant."""
    data = data.copy(deep=True)
    for name in ("log_k", "node_curve", "slope", "offset_observed", "embedding", "predicted_derivative", "law_f"):
        data[name][..., :2] = np.nan
    data["predicted_derivative"][3] = np.inf
    data["log_k_error"][:] = np.inf
    data["identifiable"][:] = False
    data["phase2_loss"][:] = np.nan
    data["phase2_components"][:] = 0.0
    data["singular_value"][5:] = 0.0
    data["concentration"][:] = 0.0
    if "true_slope" in data:
        data["true_slope"][:] = 0.0
    return data


HOPELESS = {
    "one species, one reaction": made_up(species=1, reactions=1, types=1),
    "not finite": hopeless(made_up()),
    "all zero": made_up().map(lambda a: a if a.dtype != float or a.name in {"time", "sweep"} else a * 0),
}


@pytest.mark.parametrize("case", HOPELESS)
def test_no_data_break_a_figure(case):
    scene = scene_of(HOPELESS[case], rate_constants_R2=float("nan"), activity_rank=None)
    for draw in _figures(scene).values():
        drawn(draw, scene, render=True)


def test_no_data_break_a_figure_without_truth():
    scene = scene_of(hopeless(without_truth(made_up())))
    for draw in (rates.comparison, rates.rate_law, homeostasis.node_function, homeostasis.embedding):
        drawn(draw, scene, render=True)


@pytest.mark.parametrize("sizes", [{"dim": 1}, {"dim": 3}, {"species": 30, "types": 10}, {"species": 300, "types": 60}])
def test_embeddings_of_any_size(sizes):
    figure = drawn(homeostasis.embedding, scene_of(made_up(**sizes)), render=True)
    assert [len(ax.lines) for ax in figure.axes] == [sizes.get("types", 3)] * 2


def test_hundreds_of_species():
    data = made_up(species=300)
    assert drawn(dynamics.kinograph, scene_of(data)).axes[0].images[0].get_array().shape == (300, 39)
    assert len(drawn(homeostasis.node_function, scene_of(data)).axes[0].collections[0].get_paths()) == 100


def test_a_long_legend_is_cut():
    figure = drawn(homeostasis.node_function, scene_of(made_up(species=60, types=60)))
    texts = [text.get_text() for text in figure.legends[0].texts]
    assert len(texts) == 20
    assert texts[-1] == "and 42 more"


@pytest.mark.parametrize("name", ["okabe_ito", "viridis", "tab10"])
@pytest.mark.parametrize("n", [1, 2, 8, 25])
def test_colours_are_all_different(name, n):
    assert len(set(palette(n, name))) == n


def test_a_list_of_colours_is_used_as_it_is():
    assert palette(3, "okabe_ito") == list(OKABE_ITO[:3])
    assert palette(2, "tab10") == ["#1f77b4", "#ff7f0e"]


@pytest.mark.parametrize(("name", "near"), [("okabe-ito", "okabe_ito"), ("Virids", "viridis"), ("ACCENT", "Accent")])
def test_an_unknown_colour_map_is_refused_before_anything_is_drawn(name, near, tmp_path):
    with pytest.raises(InputError, match=rf"^plotting.colormap is '{name}', .*did you mean {near}\?$"):
        check_colormap(name)
    with pytest.raises(InputError):
        draw_all(made_up(), METRICS, tmp_path, Plotting(colormap=name))
    assert names(tmp_path) == set()


def test_the_style_is_ours_whatever_the_user_has_set():
    with mpl.rc_context({"font.size": 30, "axes.spines.top": True}):
        figure = example(dynamics.singular_values)
        assert mpl.rcParams["font.size"] == 30
    assert figure.axes[0].xaxis.label.get_size() == 12
    assert not figure.axes[0].spines["top"].get_visible()


@pytest.mark.parametrize("values", [[3.0], [2e-13, 9e-13], [1e-9, 1e5], [0.0, np.nan, 5.0]])
def test_a_logarithmic_axis_has_two_powers_of_ten_in_it(values):
    with applied():
        ax = panels(1, 1, 3.0, 3.0)[1][0, 0]
        log_axis(ax, "y", np.array(values))
    low, high = np.log10(ax.get_ylim())
    assert np.floor(high) - np.ceil(low) >= 1
    assert np.nanmax(values) < ax.get_ylim()[1]


def test_robust_limits_keep_the_truth_and_drop_far_outliers():
    values, truth = np.append(np.linspace(0, 1, 50), 1000.0), np.array([3.0])
    low, high = robust_limits(values, truth)
    assert low < 0
    assert 3 < high < 10
    assert robust_limits(np.array([np.nan]), np.zeros(0)) is None


def test_numbers_as_text():
    assert [r2_text(v) for v in (0.98, 0.99999999, 1.0, -3.0, float("nan"), None)] == [
        "R² = 0.98", "R² > 0.9999", "R² = 1", "R² = -3", "R² undefined", "R² undefined",
    ]  # fmt: skip
    assert [scientific(v) for v in (0.0, 0.5, 795.0, 7.2e-8)] == ["0", "0.5", "795", "7.2·10⁻⁸"]


def test_vector_graphics_are_written_beside_and_are_the_same_every_time(tmp_path):
    plotting = Plotting(formats=("svg", "pdf"))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        draw_all(made_up(), METRICS, tmp_path / name, plotting)
    first = {path.relative_to(tmp_path / "first"): path for path in (tmp_path / "first").rglob("*") if path.is_file()}
    names = {path.with_suffix("") for path in first}
    assert {path.with_suffix(f".{kind}") for path in names for kind in ("svg", "pdf")} < set(first)
    assert len(first) == 3 * len(names)
    for path, file in first.items():
        assert file.read_bytes() == (tmp_path / "second" / path).read_bytes()
    assert ">concentration" in (tmp_path / "first/figures/traces.svg").read_text()  # text stays text


def evaluation_of(data):
    """An evaluation with nothing but what is drawn."""
    found = object.__new__(Evaluation)
    for name, value in (("data", data), ("metrics", METRICS)):
        object.__setattr__(found, name, value)
    return found


@pytest.mark.parametrize("name", plot.__all__)
def test_every_figure_can_be_drawn_alone(name, monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "font.size", 3)
    drawn = getattr(plot, name)(evaluation_of(made_up()))
    assert isinstance(drawn, Figure)
    assert drawn.axes
    assert mpl.rcParams["font.size"] == 3  # settings of the user are as before


@pytest.mark.parametrize("name", ["embedding", "node_function", "set_points"])
def test_a_figure_without_its_data_is_refused(name):
    with pytest.raises(InputError, match="has no node_curve"):
        getattr(plot, name)(evaluation_of(made_up()[list(PHASE1)]))
