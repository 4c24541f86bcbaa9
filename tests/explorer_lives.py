"""Explorations of quick jobs, and explorers that are killed: every life of one is a fork of a process that waits.

`python -P explorer_lives.py PLAN` runs one exploration undisturbed and a second one with all that the plan does to it,
and prints what happened as JSON. PLAN, as JSON: `path` of a new folder for both, `proposer` (rules or asked),
`iterations`, `changes` of the configuration, and `kills`: a number of random moments drawn with `seed`, or "events":
once after every event and once in the middle of every other line. An exploration that ends before it was killed so
often goes on for another block, and so does the undisturbed one.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import metabolismgraph
from metabolismgraph.config import load_config
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.journal import Journal
from metabolismgraph.explore.loop import Explorer
from metabolismgraph.explore.planning import own_strategies
from metabolismgraph.explore.proposers.asking import parsed_proposal, parsed_reading, parsed_submission
from metabolismgraph.explore.proposers.base import Answer, Exchange, Proposer, UnavailableError
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.review.admission import Declaration, Verdict
from metabolismgraph.explore.start import open_exploration, prepared

JOB = (sys.executable, "-I", "-S", str(Path(__file__).with_name("quick_job.py")))
os.environ["METABOLISMGRAPH_SOURCE"] = metabolismgraph.__path__[0]


def opened(path, proposer="rules", **changes):
    """A new exploration of blocks of six, in batches of four and two; changes of section `exploration`.

    Quick jobs execute no strategy file, so that no kernel needs to confine them.
    """
    settings = {"n_parallel": 4, "n_iter_block": 6, "unsafe_strategies": True} | changes
    config = load_config("explore_rank50").replace({f"exploration.{key}": value for key, value in settings.items()})
    path.mkdir()
    return open_exploration(path, prepared(config), proposer=proposer, data="made up")


def explorer(path, proposer=None, *, workers=2, limit=60.0, **given):
    """An explorer of quick jobs; strategy files that say that they are hostile are refused."""
    engine = given.pop("engine", None) or ProcessEngine(workers, limit, JOB)
    return Explorer(ExplorationFolder(path), engine, proposer or RulesProposer(), **({"review": review} | given))


def review(name, source, training, scratch):
    del training, scratch
    if "hostile" in source:
        return Verdict.refused("it is hostile")
    declaration = Declaration(
        name=name, number=9, summary="", reference="", sets=(), needs="", draws_minibatches=False, options={}
    )
    return Verdict(accepted=True, reasons=(), declaration=declaration)


class Asked(Proposer):
    """Answers as text, as a language model does: some invalid, some refused, some missing; pure in the question.

    Every question is written down; one whose answer the journal holds already is written down as asked again.
    """

    name = "asked"

    def __init__(self, path):
        self._path, self._rules = path, RulesProposer()

    def propose(self, state, iteration, slot, refusals):
        answer = self._rules.propose(state, iteration, slot, ()).value.model_dump(mode="json")
        if iteration % 6 == 3 and own_strategies(state):
            old = state.root(state.block_of(iteration)).get("training.strategies", [])
            mutation = {"param": "strategies", "old": old, "new": ["mine", "contrastive"]}
            answer |= {"parent": None, "mode": "strategy-switch", "mutations": [mutation]}
        if iteration % 5 == 1 and not refusals:
            answer["mutations"] = [{"param": "simulation.seed", "old": 42, "new": 1}]
        text = "I would rather not." if iteration % 5 == 0 and (not refusals or iteration == 10) else json.dumps(answer)
        exchange = self._ask("proposal", iteration, refusals, None if iteration % 7 == 0 else text)
        return Answer(parsed_proposal(exchange), exchange)

    def read(self, state, batch, refusals):
        answer = self._rules.read(state, batch, ()).value.model_dump_json()
        exchange = self._ask("reading", batch[0], refusals, answer if refusals or batch[0] > 1 else "{")
        return Answer(parsed_reading(exchange, batch), exchange)

    def review(self, state, block, refusals):
        answer = self._rules.review(state, block, ()).value.model_dump(mode="json")
        if block == 1:
            source = f"# version {block}, {'well meant' if refusals else 'hostile'}\n"
            answer["file"] = {"name": "mine", "source": source, "rationale": "it may work", "reference": "none"}
        exchange = self._ask("submission", block * state.settings.n_iter_block + 1, refusals, json.dumps(answer))
        return Answer(parsed_submission(exchange), exchange)

    def _ask(self, kind, iteration, refusals, text):
        question = [kind, iteration, len(refusals)]
        events = ExplorationFolder(self._path).journal.read()
        known = any(e.event == "answered" and [e.kind, e.iteration, e.attempt] == question for e in events)
        with (self._path / "questions").open("a") as stream:
            stream.write(json.dumps([*question, "again" if known else "asked"]) + "\n")
        time.sleep(0.002)  # a model takes its time, and may be cut off meanwhile
        exchange = Exchange(text, None if text else "gone for lunch", 100, 10, 0.25, seconds=0.002)
        if text is None:
            raise UnavailableError("gone for lunch", exchange)
        return exchange


def proposer_of(plan, path):
    return Asked(path) if plan["proposer"] == "asked" else RulesProposer()


def begin(plan, path, iterations, number, *, dying=False):
    """A life in a process of its own; its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if dying:
            _die_soon(number)
        explorer(path, proposer_of(plan, path)).run(iterations)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _die_soon(number):
    """Die after the first event of this life, or in the middle of writing it."""
    append = Journal.append

    def append_and_die(self, event):
        append(self, event)
        if number % 2:
            os.truncate(self.path, self.path.stat().st_size - 1 - number % 50)
        os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append_and_die


def lives(plan):
    """What happened."""
    first, second = Path(plan["path"]) / "undisturbed", Path(plan["path"]) / "disturbed"
    for path in (first, second):
        opened(path, plan["proposer"], **plan["changes"])
    gc.collect()
    gc.freeze()  # what a life shares with this process is not to be copied
    rng, iterations, kills = random.Random(plan.get("seed", 0)), plan["iterations"], []
    started = time.monotonic()
    code = _end_of(begin(plan, first, iterations, 0))
    # Lives of about half a batch: some die while proposing, some while jobs run. Where they get nowhere, on a machine
    # that has become slower meanwhile, the next one lives longer.
    usual = longest = 2.4 * (time.monotonic() - started) / iterations
    while code == 0:
        by_event = plan["kills"] == "events"
        pid = begin(plan, second, iterations, len(kills), dying=by_event)
        alive = not by_event and len(kills) < plan["kills"]
        if alive:
            time.sleep(rng.uniform(0, longest))
            os.kill(pid, signal.SIGKILL)
        code = _end_of(pid)
        if code == -signal.SIGKILL:
            events = ExplorationFolder(second).journal.read()
            longest = 1.5 * longest if kills and kills[-1][0] == len(events) else usual
            kills.append([len(events), events[-1].event])
            code = 0
        elif code == 0 and alive:
            iterations += 6
            code = _end_of(begin(plan, first, iterations, 0))
        else:
            break
    return {"code": code, "kills": kills, "iterations": iterations}


def _end_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    print(json.dumps(lives(json.loads(sys.argv[1]))))  # noqa: T201
