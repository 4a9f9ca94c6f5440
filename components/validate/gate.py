"""The Great Expectations gate: evaluates checks and writes the Data Docs. The only import of it, 5 seconds.

It writes labels and column names into its pages as they stand, so it is given them escaped.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from html import escape, unescape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.validate.rules import Check, Outcome

if TYPE_CHECKING:
    import pandas as pd

_SEVERITY = {"error": "critical", "warning": "warning"}
_RESULT = {"result_format": "SUMMARY", "partial_unexpected_count": 10}


def evaluate(
    checks: Sequence[Check], load: Callable[[str, str, Sequence[str]], pd.DataFrame], docs: Path
) -> list[Outcome]:
    """Evaluate every check and write the Data Docs to the folder ``docs``.

    Args:
        checks: what is expected.
        load: gives the data frame of a kind (``rows``, ``classes``, ``columns``), a split and the columns needed;
            its index names its rows.
        docs: the folder of the Data Docs; what it held is removed.

    Returns:
        the outcome of each check, in their order.
    """
    shutil.rmtree(docs, ignore_errors=True)
    context = _context(docs)
    source = context.data_sources.add_pandas("data")
    outcomes: dict[int, Outcome] = {}
    numbered = sorted(enumerate(checks), key=lambda item: (item[1].split, item[1].frame, item[0]))
    for (split, frame), group in groupby(numbered, key=lambda item: (item[1].split, item[1].frame)):
        members = list(group)
        columns = sorted({check.arguments["column"] for _, check in members if "column" in check.arguments})
        definition = _definition(context, source, f"{split}-{frame}", members)
        data = _escaped_frame(load(frame, split, columns))
        found = definition.run(batch_parameters={"dataframe": data}, result_format=_RESULT)
        outcomes |= {result.expectation_config.meta["check"]: _outcome(result, data) for result in found.results}
    # Great Expectations drops what it can't load with no more than a log line.
    assert sorted(outcomes) == list(range(len(checks))), "not every expectation was evaluated"
    context.build_data_docs()
    return [outcomes[index] for index in range(len(checks))]


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
                kwargs=_escaped_arguments(check),
                meta={"check": index, "rule": check.rule, "split": check.split},
                severity=FailureSeverity(_SEVERITY[check.severity]),
                description=escape(f"{check.rule}: {check.what}"),
            )
        )
    suite.save()
    assert len(suite.expectations) == len(members), "an expectation was dropped"
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    return context.validation_definitions.add(ValidationDefinition(name=name, data=batch, suite=suite))


def _outcome(result: Any, data: pd.DataFrame) -> Outcome:
    """Great Expectations' result as counts and names of what breaks the check.

    Raises:
        RuntimeError: the expectation could not be evaluated.
    """
    if result.exception_info.get("raised_exception") is not False:
        raise RuntimeError(f"{result.expectation_config.type} failed: {result.exception_info}")
    passed, found = bool(result.success), result.result
    if "unexpected_count" not in found:
        return Outcome(passed, int(not passed), 1)
    breaking = [entry[data.index.name] for entry in found["partial_unexpected_index_list"]]
    return Outcome(
        passed,
        int(found["unexpected_count"]),
        int(found["element_count"]) - int(found["missing_count"]),
        [unescape(name) if isinstance(name, str) else int(name) for name in breaking],
    )


def _escaped_frame(data: pd.DataFrame) -> pd.DataFrame:
    data = data.rename(columns=escape)
    for column in data.select_dtypes("category"):
        data[column] = data[column].cat.rename_categories(escape)
    return data if data.index.name != "label" else data.rename(index=escape)


def _escaped_arguments(check: Check) -> dict[str, Any]:
    return {
        name: [escape(item) if isinstance(item, str) else item for item in value] if isinstance(value, list) else value
        for name, value in check.arguments.items()
    }
