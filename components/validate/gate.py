"""The Great Expectations gate: evaluates checks and writes the Data Docs. The only import of it, 5 seconds."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.validate.rules import Check

if TYPE_CHECKING:
    import pandas as pd

_SEVERITY = {"error": "critical", "warning": "warning"}
_RESULT = {"result_format": "SUMMARY", "partial_unexpected_count": 10}


def evaluate(checks: Sequence[Check], load: Callable[[str, str, Sequence[str]], pd.DataFrame], docs: Path) -> list[Any]:
    """Evaluate every check and write the Data Docs to the folder ``docs``.

    Args:
        checks: what is expected.
        load: gives the data frame of a kind (``rows``, ``classes``, ``columns``), a split and the columns needed.
        docs: the folder of the Data Docs; what it held is removed.

    A frame's index names its rows: it comes back in ``partial_unexpected_index_list``.

    Returns:
        Great Expectations' result of each check, in their order.
    """
    shutil.rmtree(docs, ignore_errors=True)
    context = _context(docs)
    source = context.data_sources.add_pandas("data")
    results: dict[int, Any] = {}
    numbered = sorted(enumerate(checks), key=lambda item: (item[1].split, item[1].frame, item[0]))
    for (split, frame), group in groupby(numbered, key=lambda item: (item[1].split, item[1].frame)):
        members = list(group)
        columns = sorted({check.arguments["column"] for _, check in members if "column" in check.arguments})
        definition = _definition(context, source, f"{split}-{frame}", members)
        found = definition.run(batch_parameters={"dataframe": load(frame, split, columns)}, result_format=_RESULT)
        results |= {_number(result): result for result in found.results}
    # Great Expectations drops what it can't load with no more than a log line.
    assert sorted(results) == list(range(len(checks))), "not every expectation was evaluated"
    context.build_data_docs()
    return [results[index] for index in range(len(checks))]


def _context(docs: Path) -> Any:
    """A context in memory: no telemetry, no progress bars, no temporary folders, Data Docs at ``docs``."""
    import great_expectations
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    logging.captureWarnings(False)  # its import sends all warnings to the log
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={"gate": site},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return great_expectations.get_context(project_config=config, mode="ephemeral")


def _definition(context: Any, source: Any, name: str, members: Sequence[tuple[int, Check]]) -> Any:
    from great_expectations import ExpectationSuite, ValidationDefinition
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.metadata_types import FailureSeverity

    suite = context.suites.add(ExpectationSuite(name))
    for index, check in members:
        suite.add_expectation_configuration(
            ExpectationConfiguration(
                type=check.expectation,
                kwargs=dict(check.arguments),
                meta={"check": index, "rule": check.rule, "split": check.split},
                severity=FailureSeverity(_SEVERITY[check.severity]),
                description=f"{check.rule}: {check.what}",
            )
        )
    suite.save()
    assert len(suite.expectations) == len(members), "an expectation was dropped"
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    return context.validation_definitions.add(ValidationDefinition(name=name, data=batch, suite=suite))


def _number(result: Any) -> int:
    """Which check a result answers.

    Raises:
        RuntimeError: the expectation could not be evaluated.
    """
    if result.exception_info.get("raised_exception") is not False:
        raise RuntimeError(f"{result.expectation_config.type} failed: {result.exception_info}")
    index: int = result.expectation_config.meta["check"]
    return index
