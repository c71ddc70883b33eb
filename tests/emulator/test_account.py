"""The account's limits, its balance, moderation, and the stats that report them."""

from __future__ import annotations

from .conftest import Api, message


def test_submit_above_max_active_returns_429(api: Api) -> None:
    api.emulator.settings(duration=60)
    codes = [api.submit().status_code for _ in range(25)]
    assert codes == [200] * 24 + [429]
    assert message(api.submit()).startswith("Too many active tasks")
    stats = api.emulator.stats()
    assert (stats["active"], stats["submits"], stats["submit_requests"]) == (24, 24, 26)


def test_kontext_max_has_its_own_lower_limit(bfl: Api) -> None:
    bfl.emulator.settings(duration=60)
    codes = [bfl.submit("flux-kontext-max").status_code for _ in range(7)]
    assert codes == [200] * 6 + [429]
    assert bfl.submit("flux-kontext-pro").status_code == 200


def test_finished_job_frees_capacity(api: Api) -> None:
    api.emulator.settings(max_active=1, duration=0.1)
    api.result()
    assert api.submit().status_code == 200
    assert api.submit().status_code == 429


def test_ready_job_is_billed_once(bfl: Api) -> None:
    bfl.emulator.settings(credits=10)
    bfl.result("flux-pro-1.1")
    bfl.result("flux-pro-1.1")
    assert bfl.http.get("/v1/credits").json() == {"credits": 2}
    assert bfl.emulator.stats()["credits"] == 2
    response = bfl.submit("flux-pro-1.1")
    assert (response.status_code, message(response)) == (402, "Insufficient credits")


def test_credits_of_running_jobs_are_reserved(comet: Api) -> None:
    comet.emulator.settings(credits=5, duration=60)
    assert comet.submit("flux-pro-1.1").status_code == 200
    assert comet.submit("flux-pro-1.1").status_code == 402
    assert comet.emulator.stats()["credits"] == 5


def test_cost_grows_with_megapixels(bfl: Api) -> None:
    large = bfl.submit("flux-2-pro", width=2048, height=2048, input_image="https://example.com/a.png").json()
    assert (large["cost"], large["input_mp"], large["output_mp"]) == (9.0, 1.0, 4.0)
    assert bfl.submit("flux-2-pro").json()["cost"] == 3.0


def test_moderated_jobs_are_not_billed(api: Api) -> None:
    rejected = api.result(prompt="something NSFW here")
    assert rejected["status"] == "Request Moderated"
    assert rejected["details"] == {"Moderation Reasons": ["Sexual Content"]}
    assert rejected["result"] is None
    withheld = api.result(prompt="gore")
    assert withheld["status"] == "Content Moderated"
    assert withheld["details"]["Moderation Reasons"]
    api.emulator.settings(moderate=["kite"], moderate_output=[])
    assert api.result(prompt="a kite, gore")["status"] == "Request Moderated"
    assert api.result(prompt="gore")["status"] == "Ready"
    assert api.emulator.stats()["credits"] == 10_000 - 2.5


def test_content_is_moderated_only_after_the_duration(bfl: Api) -> None:
    bfl.emulator.settings(duration=60)
    assert bfl.poll(bfl.submit(prompt="gore")).json()["status"] == "Pending"
    assert bfl.poll(bfl.submit(prompt="nsfw")).json()["status"] == "Request Moderated"


def test_stats_contain_every_job(api: Api) -> None:
    api.submit(seed="invalid")
    image = api.result(seed=3, image_prompt=None, steps=20)
    (job,) = api.emulator.stats()["jobs"]
    assert job == {
        "id": image["id"],
        "model": "flux-dev",
        "prompt": "a red kite",
        "seed": 3,
        "status": "Ready",
        "dialect": api.gateway,
        "parameters": {"prompt": "a red kite", "seed": 3, "image_prompt": None, "steps": 20},
        "polls": 1,
        "downloads": 0,
    }
    stats = api.emulator.stats()
    assert (stats["submit_requests"], stats["submits"], stats["polls"], stats["downloads"]) == (2, 1, 1, 0)


def test_stats_abridge_long_parameters(bfl: Api) -> None:
    bfl.submit(extra="x" * 10_000)
    (job,) = bfl.emulator.stats()["jobs"]
    assert job["parameters"]["extra"].endswith("... (10000 characters)")
