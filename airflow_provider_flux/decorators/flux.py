"""``@task.flux``: a function returns a prompt or the fields of a request, and its task generates the image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    task_decorator_factory,
)

from airflow_provider_flux.exceptions import FluxBadRequestError
from airflow_provider_flux.operators.flux import FluxGenerateOperator

try:
    from airflow.providers.common.compat.sdk import determine_kwargs
except ImportError:  # before Airflow 3.2
    from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined,no-redef]  # newer ones lack it

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_flux.execution.capacity import CapacityWait


class FluxDecoratedOperator(DecoratedOperator, FluxGenerateOperator):
    """FluxGenerateOperator whose request is the return value of a function.

    The function is called again in every attempt, and after every wait for capacity at the API (HTTP 429); if it then
    returns something else, another image is requested.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *FluxGenerateOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **FluxGenerateOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.flux"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # The task returns the result of one image, whatever the function's own annotation says.
        kwargs["multiple_outputs"] = False
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the function, then generate the image."""
        return FluxGenerateOperator.execute(self, context)

    def _submit_and_wait(self, context: Context, waited: CapacityWait) -> dict[str, Any]:
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        returned = self.python_callable(*self.op_args, **kwargs)
        with self._errors(context):
            self.parameters = {**self._own_parameters(), **_fields(returned)}
            self._rendered_whole |= {"parameters"}
        return super()._submit_and_wait(context, waited)


def _fields(returned: Any) -> dict[str, Any]:
    if isinstance(returned, Mapping):
        return dict(returned)
    if isinstance(returned, str) and returned.strip():
        return {"prompt": returned}
    raise FluxBadRequestError(
        f"The function of @task.flux must return a prompt or a dict of request fields, not {type(returned).__name__}."
    )


def flux_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Turn a function that returns a prompt, or a dict of a request's fields, into a task.

    :param python_callable: The function.
    :param kwargs: Arguments of FluxGenerateOperator, such as ``model`` and ``output_uri``.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=FluxDecoratedOperator, **kwargs
    )
