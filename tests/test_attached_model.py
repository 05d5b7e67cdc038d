"""The model in a recording: damaged ones, and those of other versions of MuJoCo."""

from __future__ import annotations

import io
import zipfile

import pytest

from mjlab_rec.data.attached_model import MODEL, XML, attached_model
from mjlab_rec.data.schema import DataError, RunInfo


def info(versions: object, xml: bytes | None = None) -> RunInfo:
    files = {MODEL: b"no model"} | ({} if xml is None else {XML: xml})
    return RunInfo(
        channels=(), envs=(0,), step_dt=0.1, about={"versions": versions}, attachments=files
    )


def packed(**files: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.xml", text)
    return out.getvalue()


def test_a_model_of_another_version_is_compiled_from_its_xml(caplog):
    text = "<mujoco><worldbody><body name='b'/></worldbody></mujoco>"
    model = attached_model(info({"mujoco": "1.0"}, xml=packed(scene=text)), "'a.h5'")
    assert model.body("b").id == 1 and "compiled again" in caplog.text


@pytest.mark.parametrize("versions", [None, {}, ["mujoco"], "3"])
def test_without_a_known_version_it_is_damaged(versions):
    with pytest.raises(DataError, match="'a.h5' is damaged: its model cannot be read"):
        attached_model(info(versions), "'a.h5'")


def test_xml_that_cannot_be_read_is_one_error():
    good = packed(scene="<mujoco/>" * 50)
    at = good.index(b"scene.xml") + len("scene.xml")
    broken = [b"", good[:-3], packed(other="<mujoco/>"), packed(scene="<mujoco><no/></mujoco>")]
    broken.append(good[:at] + b"\xff" * 8 + good[at + 8 :])  # compressed data
    broken.append(good[:6] + b"\x01" + good[7:].replace(b"\x14\x00\x00\x00", b"\x14\x00\x01\x00"))
    for content in broken:
        with pytest.raises(DataError, match="XML cannot be read.*pip install mujoco==1.0"):
            attached_model(info({"mujoco": "1.0"}, xml=content), "'a.h5'")
    with pytest.raises(DataError, match="cannot read. Use it with pip install mujoco==1.0"):
        attached_model(info({"mujoco": "1.0"}), "'a.h5'")
