#!/usr/bin/python3
"""Writes images into an OCI image layout (image-spec v1.0), the same bytes for the same input.

    layout.py layer LAYOUT FOLDER
        packs FOLDER as a gzip layer; prints its descriptor, which `image` takes
    layout.py image LAYOUT TAG ARCHITECTURE CONFIG LAYER...
        writes config, manifest and the entry in index.json; CONFIG is the JSON of the field `config` of an image
        configuration, each LAYER what `layer` printed

All entries of a layer belong to root and have the time TIME; names are sorted; modes are those of the files. Python's tar and
zlib are the only tools, so nothing but Debian's python3 is needed.
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

TIME = 1610496000  # 2021-01-13T00:00:00Z, the day of Kubernetes 1.20.2; any fixed time would do
CREATED = "2021-01-13T00:00:00Z"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def to_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def write_file(path, data):
    with open(path + ".part", "wb") as out:
        out.write(data)
    os.rename(path + ".part", path)


def add_blob(layout, data, media_type):
    digest = hashlib.sha256(data).hexdigest()
    folder = os.path.join(layout, "blobs", "sha256")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, digest)
    if not os.path.exists(path):
        write_file(path, data)
    return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}


def add_layer(layout, folder):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for here, folders, files in os.walk(folder):
            folders.sort()
            links = [name for name in folders if os.path.islink(os.path.join(here, name))]
            if here != folder:
                add_entry(tar, folder, here)
            for name in sorted(files + links):
                add_entry(tar, folder, os.path.join(here, name))
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as out:
        out.write(plain.getvalue())
    descriptor = add_blob(layout, packed.getvalue(), LAYER)
    # Not a field of a descriptor; `image` takes it out again.
    descriptor["diff_id"] = "sha256:" + hashlib.sha256(plain.getvalue()).hexdigest()
    return descriptor


def add_entry(tar, folder, path):
    entry = tar.gettarinfo(path, arcname=os.path.relpath(path, folder))
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = TIME
    if entry.islnk():  # a hard link inside the folder; its bytes are packed again, which is simple and always right
        entry.type, entry.size, entry.linkname = tarfile.REGTYPE, os.path.getsize(path), ""
    if entry.isreg():
        with open(path, "rb") as content:
            tar.addfile(entry, content)
    else:
        tar.addfile(entry)


def add_image(layout, tag, architecture, config, layers):
    diff_ids = [layer.pop("diff_id") for layer in layers]
    configuration = {
        "architecture": architecture,
        "os": "linux",
        "created": CREATED,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": CREATED, "created_by": "cofferdam tests/kubernetes"} for _ in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add_blob(layout, to_json(configuration), CONFIG),
        "layers": layers,
    }
    entry = add_blob(layout, to_json(manifest), MANIFEST)
    entry["platform"] = {"architecture": architecture, "os": "linux"}
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}

    index_path = os.path.join(layout, "index.json")
    entries = []
    if os.path.exists(index_path):
        with open(index_path, encoding="utf-8") as index:
            entries = json.load(index)["manifests"]
    entries = [old for old in entries if old["annotations"]["org.opencontainers.image.ref.name"] != tag] + [entry]
    entries.sort(key=lambda one: one["annotations"]["org.opencontainers.image.ref.name"])
    write_file(os.path.join(layout, "oci-layout"), to_json({"imageLayoutVersion": "1.0.0"}))
    write_file(index_path, to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
    return entry


def main(command, layout, *rest):
    if command == "layer":
        (folder,) = rest
        print(json.dumps(add_layer(layout, folder)))
    elif command == "image":
        tag, architecture, config, *layers = rest
        add_image(layout, tag, architecture, json.loads(config), [json.loads(layer) for layer in layers])
    else:
        sys.exit(f"layout.py: no such command: {command}")


if __name__ == "__main__":
    main(*sys.argv[1:])
