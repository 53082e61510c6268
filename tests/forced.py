"""Python in a process of its own that sees several devices: this host's CPU, so many times."""

import os
import subprocess
import sys


def printed(code: str, devices: int) -> str:
    """What `code` prints where JAX has so many devices; it must end well."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
