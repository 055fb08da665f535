"""
A real S3 server for tests: OpenStack Swift with its S3 API, one process on loopback.

It checks signatures and digests and stores on disk, and its create-only writes are racy, so it is what
moto is not. Run as a script (`fix_swift.py FOLDER`) it serves until its standard input ends, so that it
never outlives the tests; the first line it prints is the port.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

USER, KEY = "test:tester", "testing"

# The order matters: symlink after versioned_writes, or a versioned bucket returns the wrong bytes.
PIPELINE = (
    "catch_errors", "gatekeeper", "cache", "etag-quoter", "listing_formats", "bulk", "s3api", "tempauth",
    "copy", "slo", "dlo", "versioned_writes", "symlink",
)  # fmt: skip
EGGS = {"cache": "memcache", "etag-quoter": "etag_quoter"}
OPTIONS = {
    "cache": ["memcache_servers = 127.0.0.1:1"],  # none: nothing is cached, nothing is shared
    "s3api": ["location = us-east-1", "s3_acl = false", "check_bucket_owner = false"],
    "tempauth": [f"user_{USER.replace(':', '_')} = {KEY} .admin"],
    "versioned_writes": ["allow_versioned_writes = true", "allow_object_versioning = true"],
}


@pytest.fixture(scope="session")
def swift_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Swift of this session's own. Its keys are USER and KEY, as in `aws_env`."""
    if importlib.util.find_spec("swift") is None:
        pytest.skip("swift is not installed (pip install zbackup[test])")
    folder = tmp_path_factory.mktemp("swift")
    try:
        os.setxattr(folder, "user.zbackup", b"1")
    except (AttributeError, OSError):
        pytest.skip("the temporary folder's file system has no extended attributes, which swift needs")
    with swift(folder) as endpoint:
        yield endpoint


@contextmanager
def swift(folder: Path) -> Generator[str]:
    """Serve from an empty folder on a file system with extended attributes."""
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = server.stdout.readline().decode().strip()
        assert port, f"swift did not start:\n{(folder / 'log').read_text()}"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stdin.close()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()


def serve(folder: Path) -> None:
    """Serve account, container, object and proxy from this process until standard input ends."""
    import eventlet
    import eventlet.hubs
    import eventlet.patcher
    import eventlet.wsgi

    eventlet.patcher.monkey_patch()
    from swift.common import storage_policy, utils, wsgi

    swift: Any = wsgi

    sockets: dict[str, Any] = {
        server: eventlet.listen(("127.0.0.1", 0), backlog=512) for server in ("account", "container", "object", "proxy")
    }
    ports = {server: int(socket.getsockname()[1]) for server, socket in sockets.items()}
    write_settings(folder, ports)
    utils.set_swift_dir(str(folder))
    storage_policy.reload_storage_policies()
    for server, socket in sockets.items():
        app: Any = swift.loadapp(str(folder / f"{server}.conf"), allow_modify_pipeline=server == "proxy")
        eventlet.spawn(
            eventlet.wsgi.server,
            socket,
            app,
            log=sys.stderr,
            log_output=False,
            protocol=swift.SwiftHttpProtocol,
            custom_pool=eventlet.GreenPool(1000),
            capitalize_response_headers=False,
        )
    print(ports["proxy"], flush=True)  # noqa: T201  this is a script here
    while True:
        eventlet.hubs.trampoline(0, read=True)
        if not os.read(0, 4096):
            os._exit(0)


def write_settings(folder: Path, ports: dict[str, int]) -> None:
    """Write Swift's configuration and rings for one disk, which is a folder."""
    from swift.common.ring import RingBuilder

    (folder / "disks" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = zb\nswift_hash_path_suffix = zb\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    default = f"[DEFAULT]\nswift_dir = {folder}\ndevices = {folder}/disks\nmount_check = false\nworkers = 0\n"
    for server in ("account", "container", "object"):
        ring: Any = RingBuilder(4, 1, 1)
        ring.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": ports[server], "device": "d1", "weight": 1.0})
        ring.rebalance(seed="zb")
        ring.get_ring().save(str(folder / f"{server}.ring.gz"))
        (folder / f"{server}.conf").write_text(
            f"{default}bind_port = {ports[server]}\n"
            f"[pipeline:main]\npipeline = {server}-server\n"
            f"[app:{server}-server]\nuse = egg:swift#{server}\nfsync = off\n"
        )
    filters = "\n".join(
        "\n".join([f"[filter:{name}]", f"use = egg:swift#{EGGS.get(name, name)}", *OPTIONS.get(name, [])])
        for name in PIPELINE
    )
    (folder / "proxy.conf").write_text(
        f"{default}bind_port = {ports['proxy']}\n"
        f"[pipeline:main]\npipeline = {' '.join(PIPELINE)} proxy-server\n"
        f"[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n{filters}\n"
    )


if __name__ == "__main__":
    serve(Path(sys.argv[1]).resolve())
