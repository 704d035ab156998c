"""Layers and images as the OCI image specification has them, written without a daemon.

A layer is a folder, packed so that the same content is the same bytes: sorted names, root as the
owner, one point in time. Layers are kept by what they were made of, so only those that changed are
made again. An image is written as an OCI archive that `ctr images import`, podman and skopeo read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from daemonset.images.commands import run

_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_EPOCH: Final = 1_577_836_800
"""2020-01-01, the time of every file."""
_KEPT_SECONDS: Final = 14 * 24 * 3600


class Layer(msgspec.Struct, frozen=True):
    """One packed layer: digests as `sha256:...`, of the compressed bytes and of the tar itself."""

    digest: str
    diff_id: str
    size: int


class Config(msgspec.Struct, frozen=True):
    """How a container of an image starts unless its pod says otherwise."""

    entrypoint: tuple[str, ...]
    env: Mapping[str, str]
    user: str = "0:0"
    labels: Mapping[str, str] = {}


class Store:
    """A folder with packed layers and finished archives.

    Several processes may use it at once. What nobody has used for two weeks goes away when `prune`
    is called.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._layers = folder / "layers"
        self._blobs = folder / "blobs"
        for path in (self._layers, self._blobs):
            path.mkdir(parents=True, exist_ok=True)

    def layer(self, key: str, fill: Callable[[Path], None]) -> Layer:
        """Return the layer of this key; if there is none yet, `fill` an empty folder with it."""
        note = self._layers / f"{key}.json"
        if note.is_file():
            layer = msgspec.json.decode(note.read_bytes(), type=Layer)
            if self.blob(layer).is_file():
                _touch(note, self.blob(layer))
                return layer
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            root = Path(scratch) / "root"
            root.mkdir()
            fill(root)
            packed = Path(scratch) / "layer"
            layer = _pack(root, packed)
            packed.replace(self.blob(layer))
        _write_whole(note, msgspec.json.encode(layer))
        return layer

    def blob(self, layer: Layer) -> Path:
        """Return the file of a layer's compressed bytes."""
        return self._blobs / layer.digest.removeprefix("sha256:")

    def unpack(self, layers: Sequence[Layer], folder: Path) -> None:
        """Lay layers over each other in a folder."""
        for layer in layers:
            # By tar: what Python's own unpacking takes differs between 3.11, 3.12 and 3.14.
            blob = str(self.blob(layer))
            run("tar", "--extract", "--no-same-owner", "--file", blob, "--directory", str(folder))

    def archive(self, name: str, layers: Sequence[Layer], config: Config) -> Path:
        """Write an image under its full name, such as docker.io/library/gputopo:0.1.0."""
        described = _describe(layers, config)
        manifest = _manifest(layers, described)
        index = _index(name, manifest)
        stem = name.replace("/", "_").replace(":", "_")
        path = self._folder / f"{stem}-{hashlib.sha256(index).hexdigest()[:16]}.tar"
        if path.is_file():
            _touch(path)
            return path
        unfinished = path.with_suffix(f".{os.getpid()}")
        with tarfile.open(unfinished, "w") as archive:
            _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(archive, "index.json", index)
            for content in (manifest, described):
                _add(archive, f"blobs/sha256/{hashlib.sha256(content).hexdigest()}", content)
            for blob in dict.fromkeys(self.blob(layer) for layer in layers):
                archive.add(blob, f"blobs/sha256/{blob.name}", filter=_plain)
        unfinished.replace(path)
        return path

    def prune(self, now: float) -> None:
        """Delete what was last used two weeks before `now`, in seconds since 1970."""
        for folder in (self._folder, self._layers, self._blobs):
            for path in folder.iterdir():
                if path.is_file() and path.stat().st_mtime < now - _KEPT_SECONDS:
                    path.unlink(missing_ok=True)


def _describe(layers: Sequence[Layer], config: Config) -> bytes:
    """Return the image's configuration as bytes; its digest is the image's identity."""
    return msgspec.json.encode(
        {
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": config.user,
                "Env": [f"{name}={value}" for name, value in config.env.items()],
                "Entrypoint": list(config.entrypoint),
                "WorkingDir": "/",
                "Labels": dict(config.labels),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )


def _manifest(layers: Sequence[Layer], described: bytes) -> bytes:
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, described),
            "layers": [
                {"mediaType": _LAYER, "digest": layer.digest, "size": layer.size}
                for layer in layers
            ],
        }
    )


def _index(name: str, manifest: bytes) -> bytes:
    # By the first containerd calls what it imports, by the second podman, buildah and skopeo.
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    described = {**_descriptor(_MANIFEST, manifest), "annotations": names}
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]})


def architecture() -> str:
    """Return this machine's architecture as Go, and so an image, calls it."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _pack(root: Path, target: Path) -> Layer:
    with target.open("wb") as raw:
        compressed = _Digested(raw)
        # No name and no time in gzip's head, and the level that is quick at two thirds the gain.
        with gzip.GzipFile("", "wb", 5, compressed, 0) as packer:
            plain = _Digested(packer)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                for path in sorted(root.rglob("*")):
                    name = str(path.relative_to(root))
                    archive.add(path, name, recursive=False, filter=_plain)
    return Layer(compressed.digest, plain.digest, compressed.size)


class _Digested(io.RawIOBase):
    """A stream that remembers the digest of what went through."""

    def __init__(self, target: Any) -> None:
        super().__init__()
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.size += len(data)
        self._target.write(data)
        return len(data)

    def writable(self) -> bool:
        return True

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Take away what differs between machines: owner, time, and links between files."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = _EPOCH
    return member


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = _plain(tarfile.TarInfo(name))
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}


def _touch(*paths: Path) -> None:
    """Note that files are in use."""
    for path in paths:
        path.touch()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that is either whole or not there."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)
