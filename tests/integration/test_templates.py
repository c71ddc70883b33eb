"""What authors write and Airflow renders becomes the request they meant, or an error before anything is sent.

Fields are rendered by Airflow itself: plain and mapped, as text and natively.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, task
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from airflow_provider_flux.arguments import is_blank
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import FluxBadRequestError
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from tests.integration.running import context

PAST = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SMALL = {"width": 256, "height": 256}
IMAGE = "https://pictures.example/reference.png"


class Upstream(BaseOperator):
    """A task before, whose result is what a test says."""


def render(make: Callable[[Any], Any], result: Any = None, native: bool = False, **params: Any) -> tuple[Any, Any]:
    """Return an operator whose fields Airflow has rendered, and the context to execute it in.

    :param make: Makes the operator; is given the reference to what a task before returned.
    :param result: What it returned.
    """
    with DAG("dag", schedule=None, render_template_as_native_obj=native, start_date=PAST) as dag:
        operator = make(Upstream(task_id="before").output)
    about = context(map_index=0)
    about["ti"] = SimpleNamespace(
        **vars(about["ti"]),
        task=operator,
        xcom_pull=lambda *_, **__: result,
        _upstream_map_indexes={"before": None},
    )
    about |= {"dag": dag, "params": params, "task": operator, "dag_run": SimpleNamespace(conf={}), "run_id": "run-1"}
    operator.render_template_fields(about, dag.get_template_env())
    return about["ti"].task, about


def generate(**arguments: Any) -> FluxGenerateOperator:
    return FluxGenerateOperator(task_id="generate", **{"model": "flux-dev", "wait_for_completion": False, **arguments})


def mapped(**arguments: Any) -> Any:
    return FluxGenerateOperator.partial(task_id="generate", wait_for_completion=False, **arguments)


def batch(folder: Path | str = "/tmp", **arguments: Any) -> FluxGenerateBatchOperator:
    given = {"model": "flux-dev", "output_uri": f"file://{folder}/", **arguments}
    return FluxGenerateBatchOperator(task_id="generate", **given)


def asked(operator: Any, about: Any = None) -> Any:
    """Return the prompt that the operator is about to send; None: it refuses to."""
    try:
        if isinstance(operator, FluxGenerateBatchOperator):
            operator._check_templates()
            (item,) = operator._items(operator._folder())
            return item.fields["prompt"] if item.request is None else item.request["prompt"]
        return operator._request()[0]["prompt"]
    except FluxBadRequestError as error:
        assert "Nothing was billed" in str(error)
        return None


PYTHON = ["None", "1984", "1, 2", "'x'", '"Open" 24/7', "true", "[1, 2]", "0x10", '{"prompt": "x"}']
"""Prompts that native rendering reads as Python."""

json_values = some.sampled_from(PYTHON) | some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


def is_right(sent: str, meant: Any) -> bool:
    """Tell whether the text that is sent is what the author meant."""
    if isinstance(meant, (dict, list)):
        return bool(json.loads(sent) == meant)
    return not is_blank(meant) and sent == str(meant)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(meant=json_values, native=some.booleans())
def test_any_json_as_a_prompt_is_sent_as_its_text_or_refused(
    flux_connection: FluxEmulator, meant: Any, native: bool
) -> None:
    ways: list[Callable[[Any], Any]] = [
        lambda xcom: generate(prompt=xcom),
        lambda xcom: generate(parameters={"prompt": xcom}),
        lambda xcom: generate(parameters="{{ {'prompt': params.prompt} }}") if native else generate(prompt=xcom),
        lambda xcom: batch(requests=[{"prompt": xcom}]),
        lambda xcom: generate(prompt="{{ params.prompt }}"),
        lambda xcom: generate(parameters={"prompt": "{{ params.prompt }}"}),
        lambda xcom: batch(requests=[{"prompt": "{{ params.prompt }}"}]),
    ]
    for number, make in enumerate(ways):
        operator, _ = render(make, meant, native, prompt=meant)
        if (sent := asked(operator)) is not None:
            # Without native rendering, a template in the middle of a DAG is its text.
            in_text = number >= 4 and not native
            assert is_right(sent, str(meant) if in_text else meant), number
    if (sent := asked(generate(prompt=meant))) is not None:
        assert is_right(sent, meant)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(meant=json_values, native=some.booleans())
def test_any_json_as_a_request_is_sent_as_its_text_or_refused(
    flux_connection: FluxEmulator, meant: Any, native: bool
) -> None:
    ways: list[Callable[[Any], Any]] = [
        lambda xcom: batch(requests=xcom),
        lambda xcom: batch(requests="{{ params.requests }}"),
        lambda xcom: batch(requests="{{ params.requests | tojson }}"),
        lambda xcom: batch(requests=["{{ params.requests[0] }}"]),
    ]
    for number, make in enumerate(ways):
        operator, _ = render(make, [meant], native, requests=[meant])
        sent = asked(operator)
        if number == 3 and not native:
            assert sent is None or is_right(sent, str(meant)), number
        elif sent is not None and isinstance(meant, dict):
            assert is_right(sent, meant["prompt"]), number
        elif sent is not None:
            assert not isinstance(meant, list)
            assert is_right(sent, meant), number


def test_prompt_from_every_source_is_sent(flux_connection: FluxEmulator) -> None:
    scene = '{"scene": "a fig",  "prompt": "x"}'
    for native in (False, True):
        for make in (
            lambda xcom: generate(prompt="{{ params.scene }}", output_uri=None),
            lambda xcom: generate(prompt=xcom),
            lambda xcom: generate(parameters="{{ {'prompt': params.scene} | tojson }}"),
        ):
            operator, about = render(make, scene, native, scene=scene)
            operator.execute(about)
    assert [job["prompt"] for job in flux_connection.stats()["jobs"]] == [scene] * 6


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("nothing", [None, "", " ", "null", "None", "undefined", [], float("nan")])
@pytest.mark.parametrize("field", ["prompt", "image_prompt", "seed", "output_uri", "webhook_url", "timeout", "model"])
def test_a_template_that_renders_to_nothing_is_refused(
    flux_connection: FluxEmulator, tmp_path: Path, field: str, nothing: Any, native: bool
) -> None:
    arguments = {"prompt": "a pear", "output_uri": f"file://{tmp_path}/x.jpeg"}
    ways: list[Callable[[Any], Any]] = [
        lambda xcom: generate(**{**arguments, field: xcom}),
        lambda xcom: generate(**{**arguments, field: "{{ params.nothing }}"}),
    ]
    for make in ways:
        operator, about = render(make, nothing, native, nothing=nothing)
        with pytest.raises(
            AirflowFailException, match=rf"Templates rendered to nothing: {field}\..*Nothing was billed"
        ):
            operator.execute(about)
    assert flux_connection.stats()["submit_requests"] == 0


@pytest.mark.parametrize("native", [False, True])
def test_empty_template_within_a_field_is_named_by_its_path(
    flux_connection: FluxEmulator, tmp_path: Path, native: bool
) -> None:
    edit = {"model": "flux-2-pro", "prompt": "at night"}
    within: list[tuple[Callable[[Any], Any], str]] = [
        (lambda xcom: generate(**edit, parameters={"input_image": xcom}), r"parameters\['input_image'\]"),
        (lambda xcom: generate(**edit, parameters={"input_image": "{{ params.x }}"}), r"parameters\['input_image'\]"),
        (lambda xcom: batch(tmp_path, requests=["a", {**edit, "seed": "{{ params.x }}"}]), r"requests\[1\]\['seed'\]"),
        (lambda xcom: batch(tmp_path, requests=["a", "{{ params.x }}"]), r"requests\[1\]"),
        (lambda xcom: batch(tmp_path, requests=["a"], max_cost="{{ params.x }}"), "max_cost"),
        (lambda xcom: batch(tmp_path, requests=xcom), "requests"),
    ]
    for make, place in within:
        operator, about = render(make, None, native, x=None)
        with pytest.raises(AirflowFailException, match=f"rendered to nothing: {place}"):
            operator.execute(about)
    whole: list[Callable[[Any], Any]] = [
        lambda xcom: generate(**edit, parameters=xcom),
        lambda xcom: generate(**edit, parameters="{{ params.x }}"),
        lambda xcom: batch(tmp_path, requests=["a"], model="flux-2-pro", parameters=xcom),
        lambda xcom: batch(tmp_path, requests=[{**edit, "input_image": None}]),
        lambda xcom: mapped(**edit).expand(parameters=[{"input_image": None}]),
        lambda xcom: mapped(**edit).expand(image_prompt=[None]),
        lambda xcom: mapped(model="flux-dev").expand(prompt=["None"]),
        lambda xcom: mapped(model="flux-pro-1.0-fill").expand(prompt=[None]),
    ]
    for make in whole:
        operator, about = render(make, {"input_image": None}, native, x={"input_image": None})
        with pytest.raises(AirflowFailException, match=r"(prompt|image_prompt|input_image) is empty"):
            operator.execute(about)
    assert flux_connection.stats()["submit_requests"] == 0


def test_unset_fields_are_not_sent(flux_connection: FluxEmulator) -> None:
    operator, about = render(
        lambda xcom: generate(
            model="flux-2-pro",
            prompt="a pear",
            seed=None,
            image_prompt=None,
            parameters={"input_image": None},
            steps="",
        )
    )
    operator.execute(about)
    operator, about = render(lambda xcom: generate(prompt="a pear", parameters=xcom), {"seed": None})
    operator.execute(about)
    assert [set(job["parameters"]) for job in flux_connection.stats()["jobs"]] == [{"prompt"}] * 2


@pytest.mark.parametrize("native", [False, True])
def test_numbers_and_policies_are_templates(flux_connection: FluxEmulator, tmp_path: Path, native: bool) -> None:
    numbers = {"cap": 5, "few": 2, "none": 0, "time": 77.5, "big": 123456, "policy": "always"}
    operator, about = render(
        lambda xcom: batch(
            tmp_path,
            requests=[{"prompt": "a pear", **SMALL}],
            max_cost="{{ params.cap }}",
            max_active="{{ params.few }}",
            max_failures="{{ params.none }}",
            timeout="{{ params.time }}",
            max_bytes="{{ params.big }}",
            reuse="{{ params.policy }}",
        ),
        native=native,
        **numbers,
    )
    options = operator._options()
    assert (options.max_cost, options.max_active, options.max_failures, options.timeout) == (5, 2, 0, 77.5)
    assert (options.max_bytes, options.reuse) == (123456, "always")
    assert operator.execute(about)["counts"]["stored"] == 1
    arguments = {"prompt": "a pear", "defer_after": "{{ params.none }}", "timeout": "{{ params.time }}"}
    operator, about = render(
        lambda xcom: generate(**arguments, prompt_upsampling="{{ false }}"), native=native, **numbers
    )
    options, (request, _) = operator._options(), operator._request()
    assert (options.defer_after, options.timeout, request["prompt_upsampling"]) == (0, 77.5, False)


def test_invalid_max_bytes_after_submit_loses_no_image(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    job = generate(prompt="a pear", parameters=SMALL).execute(context())
    uri = f"file://{tmp_path}/x.jpeg"
    operator, about = render(
        lambda xcom: generate(prompt="a pear", output_uri=uri, max_bytes="{{ params.size }}"), size="?"
    )
    assert operator.execute_complete(about, {**job, "outcome": "ready"})["uri"] == uri


def test_airflow_shows_the_fields_that_the_author_set_and_no_others() -> None:
    def later(xcom: Any) -> Any:
        operator = generate(prompt="a {{ params.fruit }}", seed=None)
        operator.reuse = "{{ params.reuse }}"
        return operator

    shown = {"model": "flux-dev", "prompt": "a pear", "seed": None}
    for make, more in (
        (lambda xcom: generate(prompt="a {{ params.fruit }}", seed=None), {}),
        (later, {"reuse": "never"}),
        (lambda xcom: mapped(model="flux-dev", seed=None).expand(prompt=["a pear"]), {}),
    ):
        operator, _ = render(make, fruit="pear", reuse="never")
        assert _serialize_rendered_fields(operator) == {**shown, **more}


SECRET = "s3c"  # shorter than what Airflow masks by its value
HOOK = {"webhook_url": "https://hooks.example/x", "webhook_secret": SECRET}


@pytest.mark.parametrize("padding", [0, 5000], ids=["whole", "truncated"])
@pytest.mark.parametrize("native", [False, True])
def test_no_rendered_field_shows_a_secret(
    flux_connection: FluxEmulator, tmp_path: Path, native: bool, padding: int
) -> None:
    prompt = "a pear" + "!" * padding
    fields = {"prompt": prompt, **SMALL, **HOOK}
    decorate: Any = task.flux(model="flux-dev", wait_for_completion=False)

    def make_image(row: Any) -> Any:
        return json.loads(row) if isinstance(row, str) else row

    ways: list[Callable[[Any], Any]] = [
        lambda xcom: generate(parameters=xcom),
        lambda xcom: generate(parameters=json.dumps(fields)),
        lambda xcom: generate(parameters="{{ params.fields }}"),
        lambda xcom: batch(tmp_path / "a", requests="{{ [params.fields] }}"),
        lambda xcom: batch(tmp_path / "b", requests=[{"prompt": prompt, "parameters": json.dumps({**SMALL, **HOOK})}]),
        lambda xcom: batch(tmp_path / "c", requests=[prompt], parameters=str({**SMALL, **HOOK})),
        lambda xcom: mapped(model="flux-dev").expand(parameters=[json.dumps(fields)]),
        lambda xcom: decorate(make_image)(json.dumps(fields)).operator,
        lambda xcom: decorate(make_image).expand(row=[json.dumps(fields)]).operator,
    ]
    for number, make in enumerate(ways):
        operator, about = render(make, fields, native, fields=fields)
        shown = json.dumps(_serialize_rendered_fields(operator))
        assert SECRET not in shown, number
        operator.execute(about)
    jobs = flux_connection.stats()["jobs"]
    assert len(jobs) == len(ways)
    assert all(job["parameters"]["webhook_url"] == HOOK["webhook_url"] for job in jobs), "they work all the same"
