"""Limits, money, moderation, and the figures that tell of them."""

from __future__ import annotations

from .conftest import Api, message


def test_more_active_jobs_than_allowed(api: Api) -> None:
    api.emulator.settings(duration=60)
    codes = [api.submit().status_code for _ in range(25)]
    assert codes == [200] * 24 + [429]
    assert message(api.submit()).startswith("Too many active tasks")
    stats = api.emulator.stats()
    assert (stats["active"], stats["submits"], stats["submit_requests"]) == (24, 24, 26)


def test_kontext_max_has_a_lower_limit_of_its_own(bfl: Api) -> None:
    bfl.emulator.settings(duration=60)
    codes = [bfl.submit("flux-kontext-max").status_code for _ in range(7)]
    assert codes == [200] * 6 + [429]
    assert bfl.submit("flux-kontext-pro").status_code == 200


def test_a_finished_job_frees_its_place(api: Api) -> None:
    api.emulator.settings(max_active=1, duration=0.1)
    api.result()
    assert api.submit().status_code == 200
    assert api.submit().status_code == 429


def test_a_ready_job_is_charged_once(bfl: Api) -> None:
    bfl.emulator.settings(credits=10)
    bfl.result("flux-pro-1.1")
    bfl.result("flux-pro-1.1")
    assert bfl.http.get("/v1/credits").json() == {"credits": 2}
    assert bfl.emulator.stats()["credits"] == 2
    answer = bfl.submit("flux-pro-1.1")
    assert (answer.status_code, message(answer)) == (402, "Insufficient credits")


def test_running_jobs_have_their_credits_put_aside(comet: Api) -> None:
    comet.emulator.settings(credits=5, duration=60)
    assert comet.submit("flux-pro-1.1").status_code == 200
    assert comet.submit("flux-pro-1.1").status_code == 402
    assert comet.emulator.stats()["credits"] == 5


def test_megapixels_cost(bfl: Api) -> None:
    large = bfl.submit("flux-2-pro", width=2048, height=2048, input_image="https://example.com/a.png").json()
    assert (large["cost"], large["input_mp"], large["output_mp"]) == (9.0, 1.0, 4.0)
    assert bfl.submit("flux-2-pro").json()["cost"] == 3.0


def test_moderated_prompts_and_outputs_cost_nothing(api: Api) -> None:
    request = api.result(prompt="something NSFW here")
    assert request["status"] == "Request Moderated"
    assert request["details"] == {"Moderation Reasons": ["Sexual Content"]}
    assert request["result"] is None
    content = api.result(prompt="gore")
    assert content["status"] == "Content Moderated"
    assert content["details"]["Moderation Reasons"]
    api.emulator.settings(moderate=["kite"], moderate_output=[])
    assert api.result(prompt="a kite, gore")["status"] == "Request Moderated"
    assert api.result(prompt="gore")["status"] == "Ready"
    assert api.emulator.stats()["credits"] == 10_000 - 2.5


def test_content_is_moderated_only_when_it_is_done(bfl: Api) -> None:
    bfl.emulator.settings(duration=60)
    assert bfl.poll(bfl.submit(prompt="gore")).json()["status"] == "Pending"
    assert bfl.poll(bfl.submit(prompt="nsfw")).json()["status"] == "Request Moderated"


def test_stats_tell_of_every_job(api: Api) -> None:
    api.submit(seed="wrong")
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


def test_long_parameters_are_abbreviated_in_the_stats(bfl: Api) -> None:
    bfl.submit(extra="x" * 10_000)
    (job,) = bfl.emulator.stats()["jobs"]
    assert job["parameters"]["extra"].endswith("... (10000 characters)")
