"""How many workers fit on which machines, by hand."""

from __future__ import annotations

import pytest

from rmo_curate.score.placement import Placement
from rmo_train.console.errors import UserError

EIGHT = {"GPU": 8.0, "CPU": 64.0}
FOUR = {"GPU": 4.0, "CPU": 32.0}
NO_GPU = {"CPU": 2.0}


@pytest.mark.parametrize(
    ("machines", "asked", "gpus_each", "workers", "each"),
    [
        ([NO_GPU], "auto", 1, 2, 0),  # one a core
        ([EIGHT], "auto", 1, 8, 1),  # one a GPU
        ([EIGHT], 4, 1, 4, 1),
        ([EIGHT], 12, 1, 12, 0),  # more than there are GPUs: a core each
        ([EIGHT, FOUR], "auto", 1, 12, 1),
        ([EIGHT], "auto", 2, 4, 2),
        ([EIGHT, FOUR], "auto", 8, 1, 8),  # a model is not split over machines
        ([EIGHT, FOUR], "auto", 3, 3, 3),  # 2 and 1, not 12 / 3
    ],
)
def test_workers_and_what_each_has(machines, asked, gpus_each, workers, each):
    found = Placement.of(machines, asked, gpus_each, one_machine=len(machines) == 1)
    assert (found.workers, found.gpus_each) == (workers, each)


@pytest.mark.parametrize(
    ("machine", "gpus_each", "needs"),
    [
        ({"GPU": 8.0, "CPU": 4.0}, 1, {"num_cpus": 0, "num_gpus": 1}),
        ({"GPU": 8.0, "CPU": 2.0}, 2, {"num_cpus": 0, "num_gpus": 2}),
        (EIGHT, 1, {"num_cpus": 0, "num_gpus": 1}),
        (NO_GPU, 1, {"num_cpus": 1, "num_gpus": 0}),
    ],
)
def test_all_workers_have_a_place_also_where_cores_are_fewer_than_gpus(machine, gpus_each, needs):
    found = Placement.of([machine], "auto", gpus_each, one_machine=True)
    assert found.needs == needs
    assert found.workers * needs["num_cpus"] <= machine["CPU"]
    assert found.workers * needs["num_gpus"] <= machine.get("GPU", 0)


def test_the_line_says_what_each_worker_has():
    assert (
        Placement.of([EIGHT], "auto", 4, one_machine=True).line == "2 Ray workers, 4 GPUs each, of 8 GPUs and 64 cores"
    )
    assert Placement.of([NO_GPU], 1, 1, one_machine=True).line == "1 Ray worker, one core each, of 0 GPUs and 2 cores"


@pytest.mark.parametrize(
    ("machines", "asked", "gpus_each", "said"),
    [
        ([NO_GPU], 3, 1, "--workers 3: this machine has only 2 cores"),
        ([FOUR], "auto", 8, "0 of 1 worker would find 8 GPUs on one machine .a machine has at most 4 GPUs"),
        ([EIGHT], 3, 4, "2 of 3 workers would find 4 GPUs on one machine"),
        ([NO_GPU], "auto", 2, "0 of 1 worker would find 2 GPUs"),
    ],
)
def test_what_does_not_fit_is_refused(machines, asked, gpus_each, said):
    with pytest.raises(UserError, match=said):
        Placement.of(machines, asked, gpus_each, one_machine=True)


def test_a_cluster_may_grow_later():
    assert Placement.of([NO_GPU], 64, 1, one_machine=False).workers == 64
