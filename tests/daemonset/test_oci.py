"""Layers and archives of images: the same content is the same bytes, and made only once."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from daemonset.images.oci import Config, Layer, Store

NAME = "registry.example/team/thing:1.2"
CONFIG = Config(("/bin/thing",), {"PATH": "/bin"}, "65532:65532")
Fill = Callable[[Path], None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store")


def filled(names: tuple[str, ...], *, time: int = 0) -> Fill:
    """Return what makes files of these names, in this order, with a link to the first sorted."""

    def fill(root: Path) -> None:
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
            os.utime(path, (time, time))
        (root / "link").symlink_to(min(names))

    return fill


def must_not_fill(_: Path) -> None:
    """Fail: the layer is there already."""
    pytest.fail("the layer is made again")


def read_archive(path: Path) -> dict[str, bytes]:
    """Return the files of an archive."""
    with tarfile.open(path) as archive:
        return {
            member.name: reader.read()
            for member in archive
            if (reader := archive.extractfile(member)) is not None
        }


def test_a_layer_does_not_tell_when_or_in_which_order_it_was_made(store: Store) -> None:
    """The same files give the same layer, whatever their times and the order they came in."""
    one = store.layer("one", filled(("b/1", "a/2"), time=1))
    two = store.layer("two", filled(("a/2", "b/1"), time=2_000_000_000))
    assert one == two


def test_a_layers_digests_are_those_of_its_bytes(store: Store) -> None:
    """`digest` and `size` are of the packed bytes, `diff_id` is of the tar in them."""
    layer = store.layer("key", filled(("a",)))
    packed = store.blob(layer).read_bytes()
    assert layer == Layer(
        f"sha256:{hashlib.sha256(packed).hexdigest()}",
        f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}",
        len(packed),
    )


def test_everything_in_a_layer_belongs_to_root(store: Store) -> None:
    """No member has an owner's number or name of the machine that built it."""
    layer = store.layer("key", filled(("a", "b/c")))
    with tarfile.open(store.blob(layer)) as archive:
        assert {(m.uid, m.gid, m.uname, m.gname) for m in archive} == {(0, 0, "", "")}


def test_a_layer_of_a_known_key_is_not_made_again(store: Store) -> None:
    """What is there is used, also by another process."""
    assert store.layer("key", filled(("a",))) == store.layer("key", must_not_fill)


def test_a_layer_whose_bytes_are_gone_is_made_again(store: Store) -> None:
    """A note without its layer is worth nothing."""
    layer = store.layer("key", filled(("a",)))
    store.blob(layer).unlink()
    assert store.layer("key", filled(("a",))) == layer
    assert store.blob(layer).is_file()


def test_a_layer_that_failed_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """The next try begins anew."""

    def fail(root: Path) -> None:
        (root / "half").write_text("")
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        store.layer("key", fail)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    store.layer("key", filled(("a",)))


def test_layers_unpack_over_each_other(store: Store, tmp_path: Path) -> None:
    """A later layer's file replaces an earlier one's; links stay links."""

    def change(root: Path) -> None:
        (root / "a").write_text("changed")

    layers = [store.layer("below", filled(("a", "b"))), store.layer("above", change)]
    target = tmp_path / "root"
    target.mkdir()
    store.unpack(layers, target)
    assert (target / "a").read_text() == "changed"
    assert (target / "b").read_text() == "b"
    assert (target / "link").readlink() == Path("a")


def test_an_archive_leads_from_its_index_to_every_layer(store: Store) -> None:
    """Index, manifest and configuration name each other by the digests of their bytes."""
    layers = [store.layer("below", filled(("a",))), store.layer("above", filled(("b",)))]
    files = read_archive(store.archive(NAME, layers, CONFIG))

    def blob(descriptor: dict[str, object]) -> bytes:
        content = files[f"blobs/{str(descriptor['digest']).replace(':', '/')}"]
        assert descriptor["size"] == len(content)
        assert descriptor["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        return content

    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (described,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(blob(described))
    config = json.loads(blob(manifest["config"]))
    assert [blob(one) for one in manifest["layers"]] == [
        store.blob(layer).read_bytes() for layer in layers
    ]
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in layers]
    assert config["config"]["Entrypoint"] == ["/bin/thing"]
    assert config["config"]["User"] == "65532:65532"


def test_an_archive_tells_its_name(store: Store) -> None:
    """Both annotations by which an import finds out what the image is called name it."""
    path = store.archive(NAME, [store.layer("key", filled(("a",)))], CONFIG)
    (described,) = json.loads(read_archive(path)["index.json"])["manifests"]
    assert described["annotations"] == {
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": NAME,
    }


def test_an_archive_is_another_file_when_the_image_is_another(store: Store) -> None:
    """A process that reads the one is not disturbed by who writes the other."""
    one = store.archive(NAME, [store.layer("one", filled(("a",)))], CONFIG)
    two = store.archive(NAME, [store.layer("two", filled(("b",)))], CONFIG)
    assert one != two
    assert one.is_file()


@pytest.mark.parametrize(("days", "kept"), [(13, True), (15, False)])
def test_what_nobody_used_for_two_weeks_goes_away(store: Store, days: int, kept: bool) -> None:
    """An archive and its layers stay for two weeks after they were last asked for."""
    layer = store.layer("key", filled(("a",)))
    path = store.archive(NAME, [layer], CONFIG)
    for file in (path, store.blob(layer)):
        os.utime(file, (0, 0))
    store.layer("key", must_not_fill)
    used = store.archive(NAME, [layer], CONFIG).stat().st_mtime
    store.prune(used + days * 24 * 3600)
    assert (path.is_file(), store.blob(layer).is_file()) == (kept, kept)
