"""Manifests of folders that curation alone reads; those of the contract with the trainer are in `rmo_train.store`."""

from __future__ import annotations

from typing import Literal

from rmo_train.store.manifests import Manifest, OfScore


class RejectsManifest(OfScore):
    """RUN/rejects."""

    stage: Literal["rejects"] = "rejects"


class StatesManifest(OfScore):
    """RUN/states."""

    stage: Literal["states"] = "states"
    width: int  # numbers of a pair


class ProbeManifest(Manifest):
    """RUN/proxies/<family> of a probe: the split that it was fitted on."""

    stage: Literal["probe"] = "probe"


class TrainedManifest(Manifest):
    """RUN/proxies/<family> of trained proxies: their split and their models."""

    stage: Literal["trained"] = "trained"
    models: dict[str, dict[str, str]]  # fold and step -> file -> sha256


class ExportManifest(Manifest):
    """What `export` writes."""

    stage: Literal["export"] = "export"
