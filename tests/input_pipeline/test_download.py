"""Downloading an archive from a local server: all or nothing, and nothing outside its folder."""

import errno
import functools
import http.server
import os
import stat
import threading
import zipfile

import pytest

from input_pipeline import DataError, prepare
from input_pipeline.datasets import download
from input_pipeline.datasets.download import fetch_zip
from input_pipeline.datasets.esc50 import Esc50


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(tmp_path):
    """A function that serves archive.zip, made from names and contents, and returns its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def archive(members) -> str:
        with zipfile.ZipFile(folder / "archive.zip", "w") as packed:
            for name, content in members.items():
                packed.writestr(name, content)
        return f"http://127.0.0.1:{server.server_port}/archive.zip"

    yield archive
    server.shutdown()
    server.server_close()


def fetch(url, tmp_path, max_bytes=10**6):
    return fetch_zip(url, tmp_path / "downloads" / "set", max_bytes=max_bytes, progress=False)


def nothing_left(tmp_path):
    return [path.name for path in (tmp_path / "downloads").iterdir()] == [".lock"]


def test_an_archive_is_downloaded_whole_and_once(serve, tmp_path):
    url = serve({"set-master/meta.csv": "a", "set-master/audio/b.wav": "b"})
    folder = fetch(url, tmp_path)
    assert (folder / "meta.csv").read_text() == "a"
    assert (folder / "audio" / "b.wav").read_text() == "b"
    assert fetch("http://127.0.0.1:9/", tmp_path) == folder


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_member_outside_the_folder_is_refused(serve, tmp_path, name):
    url = serve({"a/good": "", name: "evil"})
    with pytest.raises(DataError, match="unsafe member"):
        fetch(url, tmp_path)
    assert nothing_left(tmp_path)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_link_as_a_member_is_refused(serve, tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match="unsafe member 'link'"):
        fetch(serve({link: "/etc/passwd"}), tmp_path)


def test_archives_too_large_packed_or_unpacked_are_refused(serve, tmp_path):
    url = serve({"a": "x" * 5000})
    with pytest.raises(DataError, match="more than 1000 bytes"):
        fetch(url, tmp_path, max_bytes=1000)
    with zipfile.ZipFile(tmp_path / "served" / "archive.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("a", b"\0" * 10**6)
    with pytest.raises(DataError, match="unpacks to more than 10000 bytes"):
        fetch(url, tmp_path, max_bytes=10000)
    assert nothing_left(tmp_path)


def test_a_truncated_archive_is_refused(serve, tmp_path):
    url = serve({"a": "x" * 5000})
    archive = tmp_path / "served" / "archive.zip"
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(DataError, match="not a complete zip archive"):
        fetch(url, tmp_path)
    assert nothing_left(tmp_path)


@pytest.mark.fast
def test_a_corrupted_archive_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/a.csv", "hello,world\n" * 2000)
    content = bytearray(path.read_bytes())
    content[45:60] = b"\xff" * 15  # in the deflated stream
    path.write_bytes(content)
    with pytest.raises(DataError, match="URL is not a complete zip archive"):
        download._unpack("URL", path, tmp_path / "unpacked", 10**6)


def test_without_a_network_the_error_names_data_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(Esc50, "ARCHIVE_URL", "http://127.0.0.1:9/master.zip")
    with pytest.raises(DataError, match=r"--config.data_dir") as caught:
        prepare("esc50", prepared_dir=str(tmp_path), sample_rate=16000, progress=False)
    assert "\n" not in str(caught.value)


def test_esc50_is_downloaded_and_prepared(serve, tmp_path, monkeypatch, data_dir):
    clips = [f"{fold}-{fold}-A-{target}" for fold in range(1, 6) for target in range(10)]
    sound = (data_dir / "esc10_44k1" / "audio" / "1-100032-A-0.ogg").read_bytes()
    table = "filename,fold,target,category,esc10,src_file,take\n" + "".join(
        f"{clip}.wav,{clip[0]},{clip.rsplit('-')[-1]},kind{clip[6:]},True,1,A\n" for clip in clips
    )
    members = {f"ESC-50-master/audio/{clip}.wav": sound for clip in clips}
    url = serve({**members, "ESC-50-master/meta/esc50.csv": table})
    monkeypatch.setattr(Esc50, "ARCHIVE_URL", url)
    prepared = prepare(
        "esc50", prepared_dir=str(tmp_path / "p"), sample_rate=8000, subset="esc10", progress=False
    )
    assert prepared.targets("fold1+fold2").sum() == 20


@pytest.mark.fast
def test_members_without_a_name_are_skipped_or_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("./", "")
        archive.writestr("a/b", "c")
    download._unpack("URL", path, tmp_path / "unpacked", 10**6)
    assert (tmp_path / "unpacked" / "a" / "b").read_text() == "c"
    with pytest.raises(DataError, match="unsafe member ''"):
        download._refuse_unsafe("URL", zipfile.ZipInfo(""))


@pytest.mark.fast
def test_a_full_disk_while_unpacking_is_reported(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    with pytest.raises(DataError, match=r"cannot unpack URL .*No space left.*--config.prepared_dir"):
        download._unpack("URL", path, tmp_path / "unfinished" / "unpacked", 10**6)
