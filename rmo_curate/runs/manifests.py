"""Manifests of folders that only curation reads; those shared with the trainer are in `rmo_train.store`."""

from __future__ import annotations

from typing import Literal

from rmo_train.store.manifests import Manifest, OfScore


class RejectsManifest(OfScore):
    """RUN/rejects."""

    stage: Literal["rejects"] = "rejects"


class StatesManifest(OfScore):
    """RUN/states."""

    stage: Literal["states"] = "states"
    width: int  # numbers per pair


class ProbeManifest(Manifest):
    """RUN/proxies/<family> of a probe: its cross-fitting split."""

    stage: Literal["probe"] = "probe"


class TrainedManifest(Manifest):
    """RUN/proxies/<family> of trained proxies: their cross-fitting split and their models."""

    stage: Literal["trained"] = "trained"
    models: dict[str, dict[str, str]]  # fold and step -> file -> sha256


class ExportManifest(Manifest):
    """The folder that `export` writes."""

    stage: Literal["export"] = "export"
