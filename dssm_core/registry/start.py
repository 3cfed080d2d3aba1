"""The registered model that a training starts from, as files in the run's folder."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from dssm_core.registry.versions import CHAMPION, fetch, open_model
from dssm_core.runs.files import link, scratch
from dssm_core.runs.layout import CONFIG_FILE, START_FOLDER, TOWERS_FILE, VERSION_FILE
from dssm_core.runs.run import Run

log = logging.getLogger(__name__)

IDS_AND_VOCABULARIES = ("*_ids.parquet", "vocabulary.*.parquet")


def start_files(run: Run) -> dict[str, Path]:
    """The files of the model that `train.start_from` names, by name; none if it is null.

    They are fetched once into the run's folder, so that a training that is resumed starts from the
    same version. Without a champion, the training starts from the seed.
    """
    if run.config.train.start_from is None:
        return {}
    folder = run.root / START_FOLDER
    if not folder.is_dir():
        _fetch(run, folder)
    return {file.name: file for file in sorted(folder.iterdir())}


def _fetch(run: Run, folder: Path) -> None:
    """Copy what the training reads of the version into a new folder."""
    asked = run.config.train.start_from
    model = open_model(run.config.model_name, run.runs)
    version = model.aliases().get(CHAMPION) if asked == CHAMPION else asked
    with scratch(run.root) as work:
        part = Path(work) / START_FOLDER
        part.mkdir()
        (part / VERSION_FILE).write_text(json.dumps({"model": model.name, "version": version}))
        if version is None:
            log.info("%s has no champion yet: training starts from the seed", model.name)
        else:
            bundle = fetch(model, version, Path(work)).folder
            for file in _needed(bundle):
                link(file, part / file.name)
        os.replace(part, folder)


def _needed(bundle: Path) -> list[Path]:
    """The files of a bundle that hold towers, settings, ids and vocabularies."""
    return [
        bundle / CONFIG_FILE,
        bundle / TOWERS_FILE,
        *(file for pattern in IDS_AND_VOCABULARIES for file in sorted(bundle.glob(pattern))),
    ]
