"""The parts of the README that are made of the code are up to date."""

from __future__ import annotations

from airflow_provider_flux.client.catalogue.models import MODELS
from scripts.generate_model_table import README, table, with_table


def test_the_table_of_models_is_fresh() -> None:
    readme = README.read_text()
    assert with_table(readme) == readme, "run `make docs`"


def test_every_model_and_parameter_stands_in_the_table() -> None:
    told = table() + "`seed` `webhook_url` `webhook_secret`"
    for name, model in MODELS.items():
        assert f"`{name}`" in told
        numbered = {f"input_image_{number}" for number in range(2, 8)}
        assert [field for field in model.parameters.keys() - numbered if f"`{field}`" not in told] == []
