"""What our operators make of their templates, on top of what Airflow does.

- A template that renders to nothing is has_receipt, so that :func:`execute` can refuse it before money is spent.
- A prompt is rendered as text, whatever the DAG renders natively: Airflow would read ``'"Open" 24/7'`` or ``[1, 2]`` as
  Python, and another prompt would be paid for.
- Airflow shows rendered fields in its UI and over REST, and hides secrets by the name of a dict's key alone. Fields
  that hold one are therefore shown through :class:`Redacted`.
- Only the fields that the author set are shown: each one takes Airflow a millisecond, in every leg of a task.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.log import mask_secret

from airflow_provider_flux.arguments import is_blank, is_unset, parse_parameters, parse_structure
from airflow_provider_flux.exceptions import FluxBadRequestError
from airflow_provider_flux.redaction import redact_secrets, secrets_in

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context

_OF_THE_FUNCTION = ("op_args", "op_kwargs")
"""Arguments of the author's own function, which decides what may be empty."""
_MAY_BE_EMPTY = ("parameters", "requests")
_MAY_HOLD_SECRETS = ("parameters", "requests", "op_args", "op_kwargs")


class TemplatedOperator(BaseOperator):
    """A BaseOperator that records what its templates rendered to."""

    _left_blank: tuple[str, ...] = ()
    """The templates that rendered to nothing, by the names that a message uses."""
    _rendered_whole: frozenset[str] = frozenset()
    """The fields whose whole value comes from a template or from a mapped argument."""

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        """Render the fields; Airflow calls it for plain and for mapped tasks alike.

        :param seen_oids: Ids of values that come from mapped arguments and are not templates.
        """
        if parent is not self:
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        values = set(seen_oids)
        authored = {name: getattr(self, name) for name in template_fields}
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        rendering = _Rendering(self, context, jinja_env, values)
        for name, before in authored.items():
            after = getattr(self, name)
            if after is before and rendering.is_template(before):
                # Before Airflow 3.2, a template that renders to nothing, 0 or False stays what it was.
                after = self.render_template(before, context, jinja_env, set(values))
            if name not in _OF_THE_FUNCTION:
                after = rendering.read(name, before, after, is_prompt=name == "prompt")
            if name in _MAY_HOLD_SECRETS:
                after = _redacted(after, is_text_read=name not in _OF_THE_FUNCTION)
            setattr(self, name, after)
        self._left_blank = tuple(rendering.blank)
        self._rendered_whole = frozenset(
            name
            for name, before in authored.items()
            if rendering.is_template(before) or (self._comes_mapped and name in self._given)
        )
        self.template_fields = [name for name in authored if name in self._given or name in self._rendered_whole]

    @property
    def _comes_mapped(self) -> bool:
        return bool(getattr(self, "_BaseOperator__from_mapped", False))

    @property
    def _given(self) -> Mapping[str, Any]:
        """The arguments that the author or a mapped argument set."""
        given: Mapping[str, Any] = getattr(self, "_BaseOperator__init_kwargs", {})
        return given

    def _own_parameters(self) -> dict[str, Any]:
        """Return ``parameters`` as a dict, without the fields that the author set to None.

        :raises FluxBadRequestError: if they are not a dict.
        """
        parameters = parse_parameters(getattr(self, "parameters", None))
        is_data = "parameters" in self._rendered_whole
        return {name: value for name, value in parameters.items() if is_data or value is not None}

    def _check_templates(self) -> None:
        """Check that no template rendered to nothing.

        :raises FluxBadRequestError: naming all that did; before anything is billed.
        """
        if self._left_blank:
            raise FluxBadRequestError(
                f"Templates rendered to nothing: {', '.join(self._left_blank)}. The tasks before may have returned "
                f"nothing or been skipped, or a parameter is not set."
            )


class _Rendering:
    """One rendering of an operator's fields.

    :param values: Ids of values that are not templates.
    """

    def __init__(
        self, operator: TemplatedOperator, context: Context, env: jinja2.Environment, values: set[int]
    ) -> None:
        self._operator = operator
        self._context = context
        self._env = env
        self._values = values
        self.blank: list[str] = []

    def is_template(self, value: Any) -> bool:
        """Return whether Airflow replaces all of ``value``: text with an expression in it, or a reference to XCom."""
        if isinstance(value, str):
            return id(value) not in self._values and ("{{" in value or "{%" in value)
        return hasattr(value, "resolve") and hasattr(value, "iter_references")

    def read(self, path: str, before: Any, after: Any, is_prompt: bool) -> Any:
        """Return the value of a field: ``after``, but prompts as text.

        :param path: The name that a message uses.
        :param is_prompt: Whether it is a prompt, provided that it is text.
        """
        if is_prompt and isinstance(before, str) and self._is_read_as_python(before):
            after = self._text(before)
        if self.is_template(before):
            is_empty = is_unset(after) if path in _MAY_BE_EMPTY else is_blank(after)
            if is_empty:
                self.blank.append(path)
        elif isinstance(before, Mapping) and isinstance(after, Mapping):
            return {
                key: self.read(f"{path}[{key!r}]", before.get(key), value, key == "prompt")
                for key, value in after.items()
            }
        elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            return [
                self.read(f"{path}[{index}]", one, other, path == "requests")
                for index, (one, other) in enumerate(zip(before, after, strict=True))
            ]
        return after

    def _is_read_as_python(self, text: str) -> bool:
        import jinja2.nativetypes

        native = isinstance(self._env, jinja2.nativetypes.NativeEnvironment)
        native = native or bool(getattr(self._operator, "render_template_as_native_obj", None))
        return native and id(text) not in self._values and not text.endswith(tuple(self._operator.template_ext))

    def _text(self, text: str) -> Any:
        """Render as Airflow does, without reading the rendered text as Python; a single object stays an object."""
        template, context = self._env.from_string(text), copy.copy(self._context)
        context.update({name: value for name, value in template.globals.items() if name not in context})  # type: ignore[typeddict-item]  # any name may be a global
        try:
            nodes = list(
                template.root_render_func(
                    self._env.context_class(self._env, context, template.name, template.blocks)  # type: ignore[arg-type]  # Airflow's context is no dict
                )
            )
        except Exception:
            self._env.handle_exception()
        return nodes[0] if len(nodes) == 1 else "".join(map(str, nodes))


class Redacted:
    """A rendered field that contains a secret: the value for the operator, and the redacted value for Airflow's UI.

    For an object that is not JSON, Airflow shows what its ``serialize`` method returns.
    """

    def __init__(self, value: Any, shown: Any) -> None:
        self._value = value
        self._shown = shown

    def serialize(self) -> Any:
        """Return the redacted value."""
        return self._shown

    def __repr__(self) -> str:
        return repr(self._shown)

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._value)

    def __getitem__(self, key: Any) -> Any:
        return self._value[key]


class RedactedMapping(Redacted, Mapping[str, Any]):
    """A dict."""


class RedactedSequence(Redacted, Sequence[Any]):
    """A list."""


def _redacted(value: Any, is_text_read: bool) -> Any:
    """Return a field's value in a form in which Airflow shows no secret.

    :param is_text_read: Whether the field may be a list or a dict in the form of text.
    """
    if isinstance(value, str) and is_text_read:
        value = parse_structure(value)
    secrets = [secret for secret in secrets_in(value) if isinstance(secret, str)]
    if (shown := redact_secrets(value)) is value or isinstance(value, str):
        return value
    for secret in secrets:
        mask_secret(secret)
    return (RedactedMapping if isinstance(value, Mapping) else RedactedSequence)(value, shown)
