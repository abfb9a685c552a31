"""A process that has imported what every notebook does, and forks a fresh kernel for each line of its input.

A line is JSON: the folder that the kernel works in, and its connection file. No name is set in a kernel but by its
notebook; only what others made is at hand already, which would take seconds each time. The packages that notebooks show are
imported anew, so that none of their parts is there unless the notebook asks for it.
"""

import json
import os
import sys

os.environ["JPY_PARENT_PID"] = str(os.getpid())  # kernels end with this process

import matplotlib.pyplot  # noqa: E402, F401
import sklearn.datasets  # noqa: E402, F401
import torch  # noqa: E402, F401
import torchvision  # noqa: E402, F401

from ipykernel.kernelapp import IPKernelApp  # noqa: E402

import align.rewards  # noqa: E402, F401
import diamond.evaluation  # noqa: E402, F401
import diamond.judges  # noqa: E402, F401

OURS = ("align", "diamond", "distill")


def main():
    del sys.path[0]  # the folder of this file, which is none of theirs
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    for line in sys.stdin:
        folder, connection = json.loads(line)
        if os.fork() == 0:
            os.chdir(folder)
            IPKernelApp.launch_instance(["-f", connection])
            os._exit(0)


if __name__ == "__main__":
    main()
