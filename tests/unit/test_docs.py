"""The generated part of the README, its table of models, is up to date."""

from __future__ import annotations

from airflow_provider_flux.client.catalogue.models import MODELS
from scripts.generate_model_table import README, table, with_table


def test_readme_table_of_models_is_up_to_date() -> None:
    readme = README.read_text()
    assert with_table(readme) == readme, "run `make docs`"


def test_table_contains_every_model_and_parameter() -> None:
    text = table() + "`seed` `webhook_url` `webhook_secret`"
    for name, model in MODELS.items():
        assert f"`{name}`" in text
        numbered = {f"input_image_{number}" for number in range(2, 8)}
        assert [field for field in model.parameters.keys() - numbered if f"`{field}`" not in text] == []
