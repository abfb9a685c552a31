"""A process that has imported what every notebook does, and forks a fresh kernel for each line of its input.

A line is JSON: the folder that the kernel works in, and its connection file. No name is set in a kernel but by its
notebook; only what it imports is at hand already, which would take seconds each time.
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


def main():
    del sys.path[0]  # the folder of this file, which is none of theirs
    for line in sys.stdin:
        folder, connection = json.loads(line)
        if os.fork() == 0:
            os.chdir(folder)
            IPKernelApp.launch_instance(["-f", connection])
            os._exit(0)


if __name__ == "__main__":
    main()
