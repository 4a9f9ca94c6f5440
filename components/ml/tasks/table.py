"""The kinds of task there are, by the name that ``data.task`` and ``data.tasks`` give them."""

from __future__ import annotations

from components.ml.tasks.multi_label import MultiLabelClassification
from components.ml.tasks.question_answering import QuestionAnswering
from components.ml.tasks.regression import Regression
from components.ml.tasks.relation_classification import RelationClassification
from components.ml.tasks.task import Task
from components.ml.tasks.text_classification import TextClassification
from components.ml.tasks.token_classification import TokenClassification

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        TextClassification(),
        MultiLabelClassification(),
        Regression(),
        TokenClassification(),
        RelationClassification(),
        QuestionAnswering(),
    )
}
DEFAULT = TextClassification.name
