"""The marks on what a run leaves behind when it isn't what it could be taken for.

A mark stands where whoever uses an artifact meets it: in the folder's name, in the model file as a tensor
that no model has, in the release statement as a constraint that isn't satisfied. Each by itself is enough to
have the artifact refused. A simulated run's model can be used as any other; its file says SIMULATED in the
metadata of its header, as an insecure run's says INSECURE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from cloister.enclave.protection import Protection
from cloister.enclave.tensors import FloatArray
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.federation import FederationJob
from cloister.privacy.mock import MOCK_MARK
from cloister.workflow.release import INSECURE_RUN

INSECURE_MARK: Final = {"INSECURE.started-without-protection": np.zeros(1, dtype=np.float32)}
"""A tensor beside the weights of an insecure run: whoever loads the file by a model's names refuses it."""
MARKED: Final = frozenset({"private-training", INSECURE_RUN.name})
"""Constraints that a marked model is known to break; it stays where it was made."""


def folder_mark(job: FederationJob, protection: Protection) -> str:
    """What the job's folder is called before its name.

    Args:
        job: the job.
        protection: how the run is protected.
    """
    insecure = "INSECURE-" if protection is Protection.INSECURE else ""
    return insecure + ("MOCK-" if job.privacy.mechanism == MOCK_MECHANISM else "")


def model_marks(job: FederationJob, protection: Protection) -> Mapping[str, FloatArray]:
    """The tensors that mark a model file; none where nothing is to be marked.

    Args:
        job: the job.
        protection: how the run is protected.
    """
    mock = MOCK_MARK if job.privacy.mechanism == MOCK_MECHANISM else {}
    return {**mock, **(INSECURE_MARK if protection is Protection.INSECURE else {})}
