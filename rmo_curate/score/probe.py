"""The probe: a proxy that costs no training. A linear reward on the reference's hidden states, cross-fitted.

A reward r tilts the reference to the policy pi(y|x) ~ pi_0(y|x) exp(r(x, y) / beta), the optimum of DPO's objective
(Rafailov et al. 2023, eq. 4 and 5); its margin is D_T - D_0 = (r(chosen) - r(rejected)) / beta, whatever the constant
of the prompt. So a linear reward, learned by logistic regression from which answer was chosen, gives log-probs as a
trained proxy does, and every rule reads them alike. That hidden states hold such a reward: Guo et al. 2025 (ELHSR).
If a column of the data names the kind of prompt, each kind may have a reward of its own (`categories`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rmo_curate.runs.columns import category_column
from rmo_curate.runs.manifests import ProbeManifest, StatesManifest
from rmo_curate.runs.run import MADE_BY, Run
from rmo_curate.score import logistic
from rmo_curate.score.categories import LEAST_PAIRS, Categories, fit_categories
from rmo_curate.score.crew import Crew, Loads
from rmo_curate.score.families import Family, assign_folds, family_of, reference_key, write_split
from rmo_curate.score.scoring import in_group_order, part_rows, score_table
from rmo_curate.score.settings import ProxySettings
from rmo_curate.score.states import STATES, StateWriter, read_missing, read_states, widest
from rmo_train.console.progress import say
from rmo_train.console.wording import counted
from rmo_train.data.pairs import PairData
from rmo_train.store.id_hash import places
from rmo_train.store.manifests import RunManifest, ScoresManifest, read_manifest, require_manifest
from rmo_train.store.tables import SCORE_SCHEMA, PartWriter

FOLDS = 10  # a fit takes seconds, so nearly all of the data can teach each of them
# Of the weights, on states of unit size over the root of their number: the more labels are wrong, the stronger. Chosen
# on each data set by how well held-out labels are foretold.
RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
BETA = 0.1  # DPO's, which the proxies are trained with by default


def plan_probe(run: Path, data: PairData, settings: ProxySettings, pairs_sha: str) -> Family:
    """Everything about a probe that is known before it is fitted; writes nothing."""
    folds = settings.folds or max(2, min(FOLDS, len(np.unique(data.groups))))
    folds_of = assign_folds(data.groups, folds, settings.seed)
    key = {
        "kind": "probe",
        "fit": {"ridges": list(RIDGES), "widest": widest(len(data)), "beta": BETA},
        "folds": folds,
        "seed": settings.seed,
        "pairs": pairs_sha,
        "reference": reference_key(data),
    }
    column = category_column(_opened(run).text_columns(), settings.category_column, str(run))
    if column is not None and folds > 1:  # in-sample, nothing tells whether kinds predict labels
        key["category_column"] = column
    name, order = family_of(run, key)
    return Family(name, order, key, folds_of)


def open_states(family: Family, part_size: int, folder: Path) -> StateWriter:
    """States to be filled for a probe, in a run or share folder; another split of the same pairs has the same ones."""
    key = {name: family.key[name] for name in ("pairs", "reference")}
    return StateWriter(folder, key | {"widest": family.key["fit"]["widest"], "part_size": part_size})


def wants_states(run: Path, family: Family) -> bool:
    """Whether the probe is not scored yet and the states that it is fitted on are not all there."""
    return (
        read_manifest(run / "scores" / family.name, ScoresManifest) is None
        and read_manifest(run / STATES, StatesManifest) is None
    )


def fit_probe(run: Path, data: PairData, family: Family, part_size: int, spec: Loads, crew: Crew) -> None:
    """Read the states that are not there yet, fit, and write the probe's scores; what is finished is not done again.

    spec: the reference's, of an engine that sees states; loaded only where some are missing.
    """
    key = {"family": family.key, "part_size": part_size}
    writer = PartWriter(run / "scores" / family.name, ScoresManifest, key, SCORE_SCHEMA)
    if writer.complete:
        say(f"{family.name}: already scored")
    else:
        parts = part_rows(data.groups, in_group_order(data.groups), part_size)
        states = read_missing(open_states(family, part_size, run), data, parts, spec, crew)
        write_scores(writer, run, data, family, states, parts)
    folder = run / "proxies" / family.name
    if read_manifest(folder, ProbeManifest) is None:
        split = write_split(folder, data, family)
        ProbeManifest(key=family.key, counts={"folds": family.folds}, parts=(split,)).write(folder)


def _opened(run: Path) -> Run:
    return Run(run, require_manifest(run, RunManifest, MADE_BY))


def categories_of(run: Path, data: PairData, family: Family) -> Categories:
    """Categories of the pairs `data`, in the column that the family was planned with."""
    column = family.key.get("category_column")
    if column is None:
        return Categories.none(len(data))
    folder = _opened(run)
    at = places(pa.array(data.ids, pa.string()), folder.pairs(("id",))["id"])
    return Categories.among(folder.texts(column)[at])


def write_scores(
    writer: PartWriter[ScoresManifest],
    run: Path,
    data: PairData,
    family: Family,
    states: StatesManifest,
    parts: Mapping[str, np.ndarray],
) -> None:
    """Fit the probes on the states that the manifest `states` lists, and write what they make of each pair.

    parts: file -> rows of `data`.
    """
    for name in writer.repaired:
        say(f"{writer.folder}: {name} was damaged and will be scored again")
    folds_of = family.folds_of if family.cross_fitted else np.zeros(len(data), dtype=np.int16)
    categories = categories_of(run, data, family)  # before the states, which are large
    if categories.names:  # minutes where there are many
        say(f"{family.name}: fitting separate preferences for {counted(len(categories.names), 'kind')} of prompt")
    fitted = cross_fitted(read_states(run, states, data), folds_of, categories)
    margins = fitted.margin / BETA
    assert data.ref_chosen is not None and data.ref_rejected is not None
    logps = np.stack(tilted(data.ref_chosen, data.ref_rejected, margins), axis=1)
    for file, rows in parts.items():
        if file not in writer.finished:
            fold = family.folds_of[rows] if family.cross_fitted else -1
            writer.write(file, score_table(data, rows, logps[rows], fold, held_out=family.cross_fitted))
    say(
        f"{family.name}: {counted(family.folds, 'linear probe')} on {states.width:,} features per pair, "
        f"ridge {fitted.ridge:g}{of_categories(fitted, family.key.get('category_column'))}"
    )
    writer.finish(
        {"pairs": len(data)},
        name=family.name,
        kind="proxy",
        order=family.order,
        family=family.name,
        step=None,
        folds=family.folds,
        held_out=family.cross_fitted,
        noise_sd=None,
        ridge=fitted.ridge,
    )


def of_categories(fitted: Probes, column: str | None) -> str:
    """What the data's categories brought, to be said."""
    if column is None:
        return ""
    if not fitted.categories:
        return f"; column {column!r} does not have two values with at least {LEAST_PAIRS} pairs each, so it is not used"
    each = f"{counted(fitted.categories, 'value')} of column {column!r}"
    if fitted.category_ridge is None:
        return f"; preferences of their own for {each} do not clearly predict held-out labels better, so none are used"
    return f"; {each} with preferences of their own (ridge {fitted.category_ridge:g})"


def tilted(chosen: np.ndarray, rejected: np.ndarray, margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probs (chosen, rejected) [pairs] of the reference tilted by a reward, up to a constant of each prompt.

    chosen, rejected: the reference's. margins: D_T - D_0, nats [pairs]; each answer gets half of it.
    """
    return chosen + margins / 2, rejected - margins / 2


# ---------------------------------------------------------------------------------------------------- the fit


@dataclass(frozen=True)
class Probes:
    """r(chosen) - r(rejected) of every pair, by probes that saw nothing of its fold, and the ridges of their fits."""

    margin: np.ndarray  # float64 [pairs]
    ridge: float
    categories: int = 0  # how many are large enough for preferences of their own
    category_ridge: float | None = None  # None: their preferences are those of all pairs


def cross_fitted(differences: np.ndarray, folds_of: np.ndarray, categories: Categories | None = None) -> Probes:
    """The probes of every fold (all the same: in-sample).

    differences: of states [pairs, numbers]; brought to unit size over the root of their number, in place, so that a
    ridge is a prior that depends on neither the width of the model nor the number of pairs.
    """
    unit = logistic.unit_columns(differences) * np.sqrt(differences.shape[1])
    differences /= unit.astype(np.float32)
    of_all = logistic.cross_fit(differences, folds_of, RIDGES)
    own = categories or Categories.none(len(differences))
    fitted = fit_categories(differences, folds_of, own, of_all, RIDGES)
    return Probes(fitted.margin, of_all.ridge, len(own.names), fitted.penalty)
