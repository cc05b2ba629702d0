"""Kernels in the jail for any Jupyter client: a kernel provisioner, the zygote that its kernels are forked from, and
the kernelspec that names it."""

CHANNELS = ("shell", "iopub", "stdin", "hb", "control")
"""A kernel's sockets, in the order in which client and kernel number them from 1."""

PROVISIONER = "fourbit-jail"
"""The provisioner's name in the entry-point group jupyter_client.kernel_provisioners."""
