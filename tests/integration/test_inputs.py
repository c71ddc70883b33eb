"""Input images: given in any form, checked on the worker, sent as the gateway takes them, never written down."""

from __future__ import annotations

import base64
import io
import json
from collections import UserList
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from PIL import Image, PngImagePlugin

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import FluxStoreError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from tests.conftest import both_gateways
from tests.integration.running import TaskState, run
from tests.servers.seaweed import SeaweedFS

URL = "https://pictures.example/reference.png?sig=secret"


def picture(side: int = 256, format_: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(file, format_, **options)
    return file.getvalue()


def edit(model: str = "flux-kontext-pro", prompt: str | None = "at night", **images: Any) -> FluxGenerateOperator:
    arguments = {"image_prompt": images.pop("image_prompt")} if "image_prompt" in images else {}
    return FluxGenerateOperator(task_id="generate", model=model, prompt=prompt, parameters=images, **arguments)


def sent(flux: FluxEmulator, name: str) -> Any:
    return flux.stats()["jobs"][-1]["parameters"][name]


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def base64_of(data: bytes, shown: int = 60) -> str:
    return base64.b64encode(data).decode()[:shown]


@both_gateways
@pytest.mark.parametrize("name", ["input_image", "image_prompt", "image"])
@pytest.mark.parametrize("given", ["data", "base64", "file", "s3"])
def test_local_image_is_sent_in_the_gateways_encoding(
    flux: FluxEmulator, s3: SeaweedFS, tmp_path: Path, name: str, given: str
) -> None:
    data = picture()
    (tmp_path / "in.png").write_bytes(data)
    s3.client().put_object(Bucket=s3.bucket, Key="in.png", Body=data)
    text = base64.b64encode(data).decode()
    forms = {
        "data": f"data:image/png;base64,{text}",
        "base64": text,
        "file": f"file://{tmp_path}/in.png",
        "s3": f"s3://{s3.bucket}/in.png",
    }
    model = {"input_image": "flux-2-pro", "image_prompt": "flux-dev", "image": "flux-pro-1.0-fill"}[name]
    run(edit(model, **{name: forms[given]}))
    is_url = name == "image_prompt" and flux.stats()["jobs"][0]["dialect"] == "cometapi"
    assert sent(flux, name).startswith(f"data:image/png;base64,{text[:20]}" if is_url else text[:20])


def test_every_form_of_base64_is_decoded(flux: FluxEmulator) -> None:
    whole = picture()
    data = whole + bytes(-len(whole) % 3) + b"\xfb\xef\xbe\xff\xff\xff\0"
    text, safe = text_of(data), base64.urlsafe_b64encode(data).decode()
    assert text.endswith("++++////AA==")
    forms = [
        text.rstrip("="),
        safe,
        safe.rstrip("="),
        base64.encodebytes(data).decode(),
        "\r\n ".join([text[:100], text[100:]]),
        f"data:image/png;base64,{safe.rstrip('=')}",
        f"data:image/png;base64,{quote(text, safe='')}",
        f"data:;charset=x;BASE64 ,\n{text}",
    ]
    for given in forms:
        images = InputImages("flux-2-pro", FluxHook().get_conn(), None)
        named, problems = images.tokenize({"input_image": given})
        assert (problems, images.embed(named)) == ([], {"input_image": text}), given
    _, problems = InputImages("flux-2-pro", FluxHook().get_conn(), None).tokenize(
        {"input_image": text[: len(text) // 2]}
    )
    assert problems == ["input_image is a broken or truncated image"]


@pytest.mark.parametrize(
    ("model", "name", "side", "problem"),
    [
        ("flux-tools/deblur-v1", "image", 2049, "is 2049x2049, more than 4 megapixels"),
        ("flux-3-image", "images", 4097, "is 4097x4097, more than 16 megapixels"),
        ("flux-tools/outpainting-v1", "input_image", 63, "is 63x63; each side must have 64 pixels or more"),
        ("flux-tools/vto-v2", "garment", 255, "is 255x255; each side must have 256 pixels or more"),
    ],
)
def test_each_model_has_limits_of_its_own(flux: FluxEmulator, model: str, name: str, side: int, problem: str) -> None:
    images = InputImages(model, FluxHook().get_conn(), None)
    assert images.tokenize({name: text_of(picture(side))})[1] == [f"{name} {problem}"]
    assert images.tokenize({name: text_of(picture(side + (1 if side < 256 else -1)))})[1] == []


@pytest.mark.parametrize("kind", ["long text", "profile", "phone"])
def test_image_bytes_are_sent_unchanged(flux: FluxEmulator, kind: str) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 2_000_000, zip=True)
    data = {
        "long text": lambda: picture(pnginfo=text),
        "profile": lambda: picture(icc_profile=b"x" * 2_000_000),
        "phone": lambda: picture(format_="JPEG") + b"\0\0MotionPhoto_Data" + picture(format_="JPEG")[:-1],
    }[kind]()
    run(edit(input_image=text_of(data)))
    images = InputImages("flux-2-pro", FluxHook().get_conn(), None)
    assert images.embed(images.tokenize({"input_image": text_of(data)})[0]) == {"input_image": text_of(data)}


@both_gateways
def test_url_is_sent_where_the_api_accepts_urls(flux: FluxEmulator) -> None:
    run(edit(input_image=URL))
    assert sent(flux, "input_image") == URL


@both_gateways
def test_url_is_downloaded_where_the_api_accepts_base64_only(flux: FluxEmulator) -> None:
    generated, _ = run(FluxGenerateOperator(task_id="first", model="flux-dev", prompt="a pear"))
    url = FluxHook().get_result(generated).sample
    run(edit("flux-pro-1.0-fill", image=url))
    assert not sent(flux, "image").startswith("http")
    assert flux.stats()["downloads"] == 1
    with pytest.raises(errors.FluxBadRequestError, match=r"image cannot be fetched: .*not a public address"):
        run(edit("flux-pro-1.0-fill", image="https://127.0.0.1/reference.png"))


@both_gateways
@pytest.mark.parametrize(("stored", "waited"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("as_text", [True, False])
def test_an_earlier_image_is_edited(
    flux: FluxEmulator, tmp_path: Path, stored: bool, waited: bool, as_text: bool
) -> None:
    first = FluxGenerateOperator(
        task_id="first",
        model="flux-dev",
        prompt="a pear",
        wait_for_completion=waited,
        output_uri=f"file://{tmp_path}/first.jpeg" if stored else None,
    )
    told, _ = run(first)
    second = edit(input_image=str(told) if as_text else told)
    second.output_uri = f"file://{tmp_path}/second.png"
    run(second, run_id="run-2")
    assert sent(flux, "input_image")[:4] == "/9j/"  # a JPEG
    receipt = json.loads((tmp_path / "second.png.json").read_text())
    expected = f"sha256:{told['sha256']}" if stored else f"job:{told['id']}"
    assert receipt["parameters"]["input_image"] == expected
    downloads = flux.stats()["downloads"]
    flux.settings(link_ttl=0)  # a retry needs the first image no more
    again, _ = run(second, run_id="run-2")
    assert again["reused"]
    assert (flux.stats()["submits"], flux.stats()["downloads"]) == (2, downloads)


def test_replaced_input_image_fails_before_submit(flux: FluxEmulator, tmp_path: Path) -> None:
    first = FluxGenerateOperator(
        task_id="first", model="flux-dev", prompt="a pear", output_uri=f"file://{tmp_path}/first.jpeg"
    )
    told, _ = run(first)
    (tmp_path / "first.jpeg").write_bytes(picture(format_="JPEG"))
    with pytest.raises(AirflowFailException, match=r"input_image is no longer the image .* Nothing was billed"):
        run(edit(input_image=told))
    assert flux.stats()["submits"] == 1


@both_gateways
def test_images_keep_their_order(flux: FluxEmulator, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(picture(300))
    images = [URL, f"file://{tmp_path}/in.png", base64.b64encode(picture(260, "WEBP")).decode()]
    # What mapped tasks return is a sequence of Airflow's own, but no list.
    for given in (images, UserList(images), str(images), json.dumps(images)):
        run(edit("flux-3-image", images=given))
        first, second, third = sent(flux, "images")
        assert (first, second[:8], third[:6]) == (URL, base64_of(picture(300), 8), "UklGR" + third[5])


def test_rendered_json_list_of_results_is_read(flux: FluxEmulator) -> None:
    told, _ = run(FluxGenerateOperator(task_id="first", model="flux-dev", prompt="a pear"))
    rendered = json.dumps([told, {**told, "seed": None, "reused": True}])
    run(edit("flux-3-image", images=rendered), run_id="run-2")
    assert [image[:4] for image in sent(flux, "images")] == ["/9j/"] * 2


@both_gateways
def test_unknown_model_gets_the_value_unchanged(flux: FluxEmulator) -> None:
    client = FluxHook().get_conn()
    fields = {"prompt": "x", "image": "asset-123", "mask": "asset123", "images": ["asset-1"]}
    images = InputImages("flux-9-unheard-of", client, None)
    named, problems = images.tokenize(fields)
    assert (images.embed(named), problems) == (fields, [])
    _, problems = images.tokenize({"image": "file:///missing.png"})
    assert problems == ["image cannot be read: file:///missing.png does not exist"]


@both_gateways
def test_all_problems_are_reported_before_submit(flux: FluxEmulator, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image at all")
    cut = base64.b64encode(picture(600, "JPEG", quality=95)[:900]).decode()
    operator = edit(
        "flux-2-pro",
        input_image=f"file://{tmp_path}/text.png",
        input_image_2=base64.b64encode(picture(64)).decode(),
        input_image_3=cut,
        input_image_4="not base64!",
        input_image_5=["a", "b"],
        input_image_6={"state": "no job"},
        input_image_7=f"file://{tmp_path}/missing.png",
        input_image_8="nowhere://folder/x.png",
        safety_tolerance=9,
    )
    with pytest.raises(AirflowFailException) as caught:
        run(operator)
    for said in (
        "input_image is not a PNG, JPEG or WebP image",
        "input_image_2 is 64x64; each side must have 256 pixels or more",
        "input_image_3 is a broken or truncated image",
        "input_image_4 is neither a URL",
        "input_image_5 must be one image, not a list of 2",
        "input_image_6 a dict without an 'id'",
        f"input_image_7 cannot be read: file://{tmp_path}/missing.png does not exist",
        "input_image_8 cannot be read: ",
        "safety_tolerance must be",
    ):
        assert said in str(caught.value)
    assert flux.stats()["submit_requests"] == 0


def test_too_large_image_is_refused(flux: FluxEmulator, tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(b"x" * (21 * 1024 * 1024))
    wide = picture(4500)
    file = io.BytesIO()
    Image.new("1", (15_000, 15_000)).save(file, "PNG")  # more than Pillow opens
    for given, said in (
        (f"file://{tmp_path}/huge.png", "larger than 20 MB"),
        (wide, "more than 20 megapixels"),
        (file.getvalue(), "more than 20 megapixels"),
    ):
        image = base64.b64encode(given).decode() if isinstance(given, bytes) else given
        with pytest.raises(errors.FluxBadRequestError, match=said):
            run(edit(input_image=image))


@pytest.mark.parametrize("place", ["flux/missing.png", "no-such-bucket/x.png"])
def test_missing_image_is_not_retried(flux: FluxEmulator, s3: SeaweedFS, place: str) -> None:
    with pytest.raises(AirflowFailException, match=f"s3://{place} does not exist.*steps is not.*Nothing was billed"):
        run(edit(input_image=f"s3://{place}", steps=3))
    assert flux.stats()["submit_requests"] == 0


def test_store_outage_of_an_input_image_is_retryable(
    flux: FluxEmulator, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps({**s3.connection(), "password": "wrong"}))
    with pytest.raises(FluxStoreError, match=r"s3://flux/x.png cannot be read .*Nothing was billed") as caught:
        run(edit(input_image=f"s3://{s3.bucket}/x.png"))
    assert not isinstance(caught.value, AirflowFailException)
    assert flux.stats()["submit_requests"] == 0


def test_unsupported_image_is_not_read(flux: FluxEmulator) -> None:
    with pytest.raises(AirflowFailException, match="input_image is not a parameter of flux-dev") as caught:
        run(edit("flux-dev", input_image="file:///missing.png"))
    assert "does not exist" not in str(caught.value)


def test_input_image_changes_the_fingerprint_but_is_not_in_the_receipt(flux: FluxEmulator, tmp_path: Path) -> None:
    data = [picture(300), picture(400)]
    state = TaskState()
    for expected, image in ((1, data[0]), (1, data[0]), (2, data[1])):
        (tmp_path / "in.png").write_bytes(image)
        operator = edit("flux-2-pro", input_image=f"file://{tmp_path}/in.png", input_image_2=URL)
        operator.output_uri = f"file://{tmp_path}/out.jpeg"
        told, _ = run(operator, state=state)
        assert flux.stats()["submits"] == expected
        written = (tmp_path / "out.jpeg.json").read_text() + json.dumps(told)
        assert base64_of(image) not in written
        assert "sig=" not in written
        assert "https://pictures.example/...sha256:" in written
        assert "reference.png" not in written


@pytest.mark.parametrize(("model", "prompt"), [("flux-pro-1.0-fill", "at night"), ("flux-tools/erase-v1", None)])
def test_a_mask_of_another_size_is_refused(flux: FluxEmulator, model: str, prompt: str | None) -> None:
    image, mask = (base64.b64encode(picture(side)).decode() for side in (512, 256))
    with pytest.raises(errors.FluxBadRequestError, match="mask is 256x256, but image is 512x512"):
        run(edit(model, prompt, image=image, mask=mask))
    run(edit(model, prompt, image=image, mask=image))


def test_mask_is_compared_with_the_displayed_size(flux: FluxEmulator) -> None:
    def of(size: tuple[int, int], format_: str, orientation: int) -> str:
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        Image.new("RGB", size, "teal").save(file, format_, exif=exif)
        return text_of(file.getvalue())

    photo = of((512, 300), "JPEG", 6)
    run(edit("flux-pro-1.0-fill", image=photo, mask=of((300, 512), "PNG", 1)))
    with pytest.raises(errors.FluxBadRequestError, match="mask is 512x300, but image is 300x512"):
        run(edit("flux-pro-1.0-fill", image=photo, mask=of((512, 300), "PNG", 1)))
