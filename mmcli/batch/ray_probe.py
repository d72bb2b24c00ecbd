"""`python -m mmcli.batch.ray_probe ADDRESS`: whether this machine can work with the Ray cluster at an address.

It is a process of its own because Ray ends the one in which it waits for a cluster in vain.
"""

import os
import sys

READY, GOOD = "ready", "good"


def main(address: str) -> None:
    """Write READY to standard output when Ray is loaded, then GOOD, in a line why not, or nothing for no cluster."""
    import ray

    _report(READY)
    try:
        ray.init(address=address, log_to_driver=False)
    except ConnectionError:
        return  # nothing is there
    except Exception as error:
        _report(" ".join(str(error).split()) or type(error).__name__)
        return
    _report(GOOD)


def _report(line: str) -> None:
    """Say something to the parent process."""
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
