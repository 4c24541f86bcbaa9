"""Strategies written by programs that know nothing but the prompt: they land, and the next block trains with them."""

import json
import re
import sys
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from explorer_lives import explorer
from questions import proposal
from test_llm import Reply, called, error, quick, server  # noqa: F401 (fixtures)

from metabolismgraph.config import load_config
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.planning import own_strategies
from metabolismgraph.explore.proposers import make_proposer
from metabolismgraph.explore.review import contract
from metabolismgraph.explore.review.admission import Declaration, Verdict
from metabolismgraph.explore.review.examination import _declared
from metabolismgraph.explore.review.syntax import static_reasons
from metabolismgraph.explore.start import open_exploration, prepared
from metabolismgraph.explore.state import State
from metabolismgraph.homeostasis.fit import fit_homeostasis
from metabolismgraph.homeostasis.strategies import custom

RECORDED = json.loads((Path(__file__).parent / "golden" / "new_strategy" / "response.json").read_text(encoding="utf-8"))
SUBMISSION = json.loads(RECORDED["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])
BLOCK = 2  # iterations, in one batch


def begun(path, proposer, **changes):
    """An exploration of `small`, and its proposer."""
    settings = {"n_parallel": BLOCK, "n_iter_block": BLOCK, "until_settled": False} | changes
    config = load_config("small").replace({f"exploration.{key}": value for key, value in settings.items()})
    path.mkdir()
    open_exploration(path, prepared(config), proposer=proposer, data="made up")
    return make_proposer(proposer, config.exploration, path)


@pytest.fixture
def loaded(tmp_path):
    """The strategy of a file, by its name while the test runs."""

    def load(name, source):
        path = tmp_path / f"{name}.py"
        path.write_text(source, encoding="utf-8")
        return custom.load(path)

    yield load
    custom.forget()


@pytest.fixture
def by_contract(loaded):
    """The review without its trainings, which test_review.py and test_strategies.py do."""

    def review(name, source, training, scratch):
        del training, scratch
        if reasons := static_reasons(name, source):
            return Verdict.refused(*reasons)
        kind = loaded(name, source)
        if faults := contract.declaration_faults(kind):
            return Verdict.refused(*faults)
        return Verdict(True, (), Declaration(**{**_declared(kind), "name": name, "sets": tuple(kind.sets)}))

    return review


def assert_used(path, name):
    """A file landed at the first attempt, and all runs of the next block trained with it."""
    state = State.of(ExplorationFolder(path).journal.read())
    (review,) = state.reviews
    assert review.note == ""
    assert review.reasons == ()
    assert review.landed == own_strategies(state)[name].landed
    assert (path / "strategies" / f"{name}.py").read_text(encoding="utf-8") == review.file.source
    block = state.in_block(1)
    assert len(block) == BLOCK
    assert all(i.proposed.files == {name: review.landed} for i in block)
    assert all(i.has_reward for i in block)
    return review


# A recorded answer of a language model


def scripted(host, submissions):
    """Answers every proposal with the root, every submission with the next one, and leaves readings to the rules."""
    left = list(submissions)

    def reply(body):
        kind = next(iter(body["tools"][0]["function"]["parameters"]["properties"]))
        if kind == "start":
            answer = left.pop(0)
            return answer if isinstance(answer, Reply) else called(answer)
        return called(proposal()) if kind == "parent" else error(400)

    host.replies = [reply] * 1000


def run(host, path, by_contract, iterations, **changes):
    proposer = begun(path, "llm", llm_model="recorded", llm_base_url=host.url, llm_images=False, **changes)
    return explorer(path, proposer, review=by_contract).run(iterations)


def test_a_recorded_answer_lands_and_is_used(server, tmp_path, by_contract):  # noqa: F811
    scripted(server, [Reply(body=RECORDED)])
    path = tmp_path / "exploration"
    run(server, path, by_contract, 2 * BLOCK)
    review = assert_used(path, SUBMISSION["file"]["name"])
    assert review.file.source == SUBMISSION["file"]["source"]
    assert review.by == "llm (recorded)"


def test_the_recorded_strategy_learns(small, small_phase1, small_config, loaded):
    name = SUBMISSION["file"]["name"]
    loaded(name, SUBMISSION["file"]["source"])
    # A tenth of the steps is more than enough.
    changes = {"strategies": tuple(SUBMISSION["start"][0]["new"]), "data_augmentation_loop": 100}
    training = small_config.training.model_copy(update=changes)
    result = fit_homeostasis(small.observations, small_phase1, small_config.graph_model, training)
    low, high = np.quantile(small.observations.concentration, (0.05, 0.95))
    ends = jnp.asarray([[low], [high]]) * jnp.ones(len(small.truth.lam))
    slopes = np.diff(np.asarray(result.model.homeostasis(ends)), axis=0)[0] / (high - low)
    assert slopes == pytest.approx(-small.truth.lam, rel=0.02)


# A program

AGENT = r"""
import json, re, sys

asked = sys.stdin.read()
kind = json.loads(asked.strip().splitlines()[-1])["title"]
if kind == "Submission":
    examples = asked.partition("## Three strategies of the package, whole")[2]
    source = next(s for s in re.findall(r"```python\n(.*?)```", examples, re.DOTALL) if "(Lengths)" in s)
    strategy = re.search(r"class (\w+)\(Strategy\)", source)[1]
    source = source.replace(f"class {strategy}(", f"class Slow{strategy}(")
    option, default = re.search(r"^    (\w+): int = Field\(\s*(\d+)", source, re.MULTILINE).groups()
    source = re.sub(rf"({option}: int = Field\(\s*){default}", rf"\g<1>{int(default) + 1}", source)
    old = json.loads(re.search(r"strategies=(.*)$", asked, re.MULTILINE)[1])
    change = {"param": "strategies", "old": old, "new": ["slow_copy"]}
    file = {"name": "slow_copy", "source": source, "rationale": "more stages", "reference": "the example"}
    answer = {"start": [change], "file": file, "rationale": "the example with one option changed"}
elif kind == "Reading":
    batch = re.search(r"^Read the batch of iterations ([\d, ]+) of", asked, re.MULTILINE)[1].split(",")
    entries = [{"iteration": int(n), "visual": "none", "observation": "none"} for n in batch]
    answer = {"iterations": entries, "memory": "nothing is known"}
else:
    answer = {"parent": None, "mode": "explore", "hypothesis": "the root as it is"}
print(json.dumps(answer))
"""


def test_a_program_that_knows_the_prompt_alone_writes_a_strategy(tmp_path, by_contract):
    agent = tmp_path / "agent.py"
    agent.write_text(textwrap.dedent(AGENT))
    path = tmp_path / "exploration"
    proposer = begun(path, "command", command=(sys.executable, "-I", "-S", str(agent)))
    explorer(path, proposer, review=by_contract).run(2 * BLOCK)
    review = assert_used(path, "slow_copy")
    assert re.search(r"class Slow\w+\(Strategy\)", review.file.source)
    state = State.of(ExplorationFolder(path).journal.read())
    assert {i.proposed.by for i in state.iterations} == {"command (" + Path(sys.executable).name + ")"}


# Files that fail


def messages(request):
    return "\n".join(str(message["content"]) for message in request[2]["messages"])


def questions_before_blocks(host):
    return [request for request in host.requests if "BLOCK END + CODE REVIEW" in messages(request)]


def changed(before, after):
    """The recorded submission with a changed source."""
    source = SUBMISSION["file"]["source"]
    assert before in source
    return SUBMISSION | {"file": SUBMISSION["file"] | {"source": source.replace(before, after)}}


HOSTILE = ("import dataclasses\n", "import os\nimport dataclasses\n")


def test_a_refused_file_goes_back_with_its_error(server, tmp_path, by_contract):  # noqa: F811
    scripted(server, [changed(*HOSTILE), SUBMISSION])
    run(server, tmp_path / "exploration", by_contract, 2 * BLOCK)
    first, second = questions_before_blocks(server)
    assert "import of os is not allowed" not in messages(first)
    assert "1. line 5: import of os is not allowed" in messages(second)
    assert json.dumps(changed(*HOSTILE)["file"]["source"])[:200] in messages(second)
    review = State.of(ExplorationFolder(tmp_path / "exploration").journal.read()).reviews[0]
    assert review.file.source == SUBMISSION["file"]["source"]
    assert "import of os is not allowed" in review.reasons[0]


def test_after_its_attempts_the_block_begins_without_a_file(server, tmp_path, by_contract):  # noqa: F811
    scripted(server, [changed(*HOSTILE)] * 2)
    state = run(server, tmp_path / "exploration", by_contract, 2 * BLOCK, attempts=2)
    assert len(questions_before_blocks(server)) == 2
    (review,) = state.reviews
    assert (review.file, review.landed, review.changes, review.by) == (None, None, {}, "rules")
    assert review.note == "2 answers of llm (recorded) were refused"
    assert all(i.has_reward and not i.proposed.files for i in state.iterations)


def test_a_corrected_file_replaces_one_whose_trainings_fail(server, tmp_path, by_contract):  # noqa: F811
    path, name = tmp_path / "exploration", SUBMISSION["file"]["name"]
    better = changed("number: ClassVar = 11", "number: ClassVar = 12")
    better = better | {"start": []}  # the root still names it
    scripted(server, [SUBMISSION, better])
    run(server, path, by_contract, BLOCK)
    (path / "faults.json").write_text(json.dumps({"3": "broken", "4": "broken"}))
    proposer = make_proposer("llm", State.of(ExplorationFolder(path).journal.read()).settings, path)
    state = explorer(path, proposer, review=by_contract).run(3 * BLOCK)
    first, second = state.reviews
    assert second.rolled_back == {name: None}
    assert second.landed != first.landed
    assert [i.proposed.files for i in state.in_block(2)] == [{name: second.landed}] * BLOCK
    assert all(i.has_reward for i in state.in_block(2))
    asked = questions_before_blocks(server)[1]
    told = messages(asked).partition("rolled back now, since all their trainings failed]\n")[2].splitlines()[0]
    assert told.startswith(f"{name}: ")
    assert state.iterations[2].outcome.reason in told
