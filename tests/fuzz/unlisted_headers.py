"""A hook of schemathesis: which headers make a request invalid.

One that the document does not list makes none invalid: HTTP lets a client or a proxy send any, and
a service ignores those that it does not know. Nor does a wrong time limit, since the configuration
of this test puts a right one in its place.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoveragePhaseData, CoverageScenario

_REPLACED = "x-request-timeout"


@schemathesis.hook
def filter_case(_: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Leave out what would be invalid by such a header alone."""
    data = None if case.meta is None else case.meta.phase.data
    if data is None or data.parameter_location is not ParameterLocation.HEADER:
        return True
    if (data.parameter or "").lower() == _REPLACED:
        return False
    return not (
        isinstance(data, CoveragePhaseData)
        and data.scenario is CoverageScenario.OBJECT_UNEXPECTED_PROPERTIES
    )
