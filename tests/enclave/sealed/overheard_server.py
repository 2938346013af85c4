"""Starts the hostile server under a filter that has a listener: a process can have only one."""

from __future__ import annotations

import os
import sys

import pyseccomp

if __name__ == "__main__":
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    rules.add_rule(pyseccomp.NOTIFY, "swapon")
    rules.load()
    os.set_inheritable(pyseccomp._libseccomp.seccomp_notify_fd(rules._filter), True)
    os.set_inheritable(int(sys.argv[1]), True)
    os.execv(
        sys.executable,
        [sys.executable, "-s", "-P", "-m", "tests.enclave.sealed.light_server", sys.argv[1]],
    )
