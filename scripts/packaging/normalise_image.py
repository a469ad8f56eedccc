#!/usr/bin/env python3
"""Rewrites an image archive of buildah's for `docker load` without what differs from build to build: the id of the container it
was built in, and that container's host name.

    normalise_image.py IN.tar OUT.tar.gz
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile


def add(archive, name, content, size):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    archive.addfile(entry, content)


source, target = sys.argv[1:]
with tarfile.open(source) as old, open(target, "wb") as raw:
    [image] = json.load(old.extractfile("manifest.json"))
    config = json.load(old.extractfile(image["Config"]))
    for key in ("container", "container_config"):
        config.pop(key, None)
    config["config"].pop("Hostname", None)
    text = json.dumps(config, sort_keys=True).encode()
    image["Config"] = hashlib.sha256(text).hexdigest() + ".json"
    manifest = json.dumps([image], sort_keys=True).encode()
    with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=9, mtime=0) as packed, tarfile.open(
        fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT
    ) as new:
        add(new, "manifest.json", io.BytesIO(manifest), len(manifest))
        add(new, image["Config"], io.BytesIO(text), len(text))
        for layer in image["Layers"]:
            add(new, layer, old.extractfile(layer), old.getmember(layer).size)
