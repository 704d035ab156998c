"""Images for kubelet: every one is there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import grpc

from tests.e2e.cri.v1 import api_pb2 as cri
from tests.e2e.cri.v1 import api_pb2_grpc as rpc

# Bytes; kubelet's garbage collection refuses images of size 0.
_SIZE: Final = 1 << 20


def image_id(image: str) -> str:
    """Return the ID that an image of this name has."""
    return f"fake:{image}"


class Images(rpc.ImageServiceServicer):
    """Answers for images; `folder` stands for the disk that they are on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ListImages(  # noqa: N802 -- the RPC's name
        self, request: cri.ListImagesRequest, context: grpc.ServicerContext
    ) -> cri.ListImagesResponse:
        """Show none: what is not listed is not collected as garbage."""
        return cri.ListImagesResponse()

    def ImageStatus(  # noqa: N802 -- the RPC's name
        self, request: cri.ImageStatusRequest, context: grpc.ServicerContext
    ) -> cri.ImageStatusResponse:
        """Have whatever is asked for."""
        name = request.image.image
        return cri.ImageStatusResponse(
            image=cri.Image(id=image_id(name), repo_tags=[name], size=_SIZE)
        )

    def PullImage(  # noqa: N802 -- the RPC's name
        self, request: cri.PullImageRequest, context: grpc.ServicerContext
    ) -> cri.PullImageResponse:
        """Have it already."""
        return cri.PullImageResponse(image_ref=image_id(request.image.image))

    def ImageFsInfo(  # noqa: N802 -- the RPC's name
        self, request: cri.ImageFsInfoRequest, context: grpc.ServicerContext
    ) -> cri.ImageFsInfoResponse:
        """Take no room."""
        usage = cri.FilesystemUsage(
            timestamp=time.time_ns(),
            fs_id=cri.FilesystemIdentifier(mountpoint=str(self._folder)),
            used_bytes=cri.UInt64Value(value=0),
            inodes_used=cri.UInt64Value(value=0),
        )
        return cri.ImageFsInfoResponse(image_filesystems=[usage], container_filesystems=[usage])
